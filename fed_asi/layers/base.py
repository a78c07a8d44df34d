"""What all compressed layers share: their state, the registry of kinds, and the warm factors.

A layer is compressed by swapping `module.__class__` for a module-level class derived from the original, and
attaching a `LayerState` as `module._asi`. Parameters keep their identity, and state_dict keys, deepcopy and pickle
work as before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from fed_asi.errors import ConfigError, UnsupportedLayerError, nearest
from fed_asi.gpus import device_of
from fed_asi.layers.clipping import Clip
from fed_asi.layers.constants import Constants
from fed_asi.layers.gradient import Sink
from fed_asi.layers.slices import Slice
from fed_asi.methods import Method
from fed_asi.torch_private import changes_of, has_hooks, hooks_of
from fed_asi.tucker import Factors


@dataclass(slots=True)
class LayerState:
    """What a compressed layer remembers; none of it is a Parameter or a buffer.

    name: qualified name in the model, for messages.
    method: how the input is kept.
    original: the class of the module before it was compressed.
    seed: the run's seed for this layer; the only source of its random starts.
    micro_batch: a batch of N > micro_batch samples is treated as ceil(N / micro_batch) independent
        micro-batches side by side, each with its own core and factors. None: one.
    fused: the modules that this layer also computes, in order: (), (bn,), (bn, act) or (act,). Their
        own classes are swapped for pass-through ones.
    pooled: the output only feeds a global average pool, so the layer may run on the spatial mean of its input.
    watched: the modules that must have no hooks for the group to be computed as one: the fused modules and, for a
        pooled layer, those up to its pool.
    apart: whether the last forward pass found such a hook, so that the fused modules ran on their own.
    mean: (C,) fixed channel mean of the input, for centred methods.
    factors: committed warm factors, one per mode of the input; None for a mode without one.
    pending: the factors of the last micro-batch; they are committed once an optimizer has moved the weights.
    moves: how many times the layer's trained parameters had been written to when `pending` was found.
    found, used: how often `pending` was found, and whether the backward pass of the newest has run.
    published_bytes: bytes of the kept forms, without masks, over all calls in a meter's block: the papers' count.
    channels, slice: the input channels kept, (k,), and their places in the weight; None: all channels.
    sink: takes the layer's gradients in place of autograd, in steps that apply each gradient at once.
    constants: a cache of values derived from the layer's frozen tensors, for simulated steps; None: no cache, as in a
        step traced for a device's memory.
    """

    name: str
    method: Method
    original: type[nn.Module]
    seed: int = 0
    micro_batch: int | None = None
    fused: tuple[nn.Module, ...] = ()
    pooled: bool = False
    watched: tuple[nn.Module, ...] = ()
    apart: bool = False
    mean: Tensor | None = None
    factors: Factors | None = None
    pending: Factors | None = None
    moves: int = 0
    found: int = 0
    used: bool = False
    published_bytes: int = 0
    sink: Sink | None = None
    constants: Constants | None = None
    clip: Clip | None = None
    channels: Tensor | None = None
    slice: Slice | None = None

    @property
    def quick(self) -> bool:
        """Whether the layer is simulated: it may hold more for a moment than a device would, for speed."""
        return self.constants is not None


class LayerKind(ABC):
    """One kind of layer: its compressed class, what it does not support, and what it keeps.

    A kind sets `original` (matched exactly, because a subclass may have another forward) and
    `compressed`, and overrides `unsupported` and `saved_bytes`.
    """

    original: ClassVar[type[nn.Module]]
    compressed: ClassVar[type[nn.Module]]
    state: ClassVar[type[LayerState]] = LayerState

    @abstractmethod
    def unsupported(self, module: nn.Module, method: Method) -> str | None:
        """Return why `method` cannot keep the input of `module`, and what to do; None when it can."""

    @abstractmethod
    def saved_bytes(
        self,
        module: nn.Module,
        method: Method,
        input_shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        fused: Sequence[nn.Module] = (),
    ) -> int:
        """Return the bytes that the layer keeps from forward to backward for one micro-batch.

        input_shape: shape of the layer's input, batch first.
        fused: the modules computed with it, as in `LayerState.fused`.
        Exact for methods with fixed sizes; an upper bound for HOSVD.
        """

    def canonical_order(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Return ranks, one per mode, in (B, C, *S) order; `ranks` is in the layer's own order."""
        return ranks

    def own_order(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Return ranks, one per mode, in the layer's own order; `ranks` is in (B, C, *S) order."""
        return ranks

    def remark(self, module: nn.Module, method: Method) -> str:
        """Return what a reader of the report should know about this layer under `method`, or an empty string."""
        return ""


_Hook = TypeVar("_Hook", bound=Callable[..., object])
_KINDS: dict[type[nn.Module], LayerKind] = {}
_LATE: dict[str, Callable[[], object]] = {}


def register(kind: LayerKind) -> LayerKind:
    """Register `kind` for modules of its original class, and return it."""
    _KINDS[kind.original] = kind
    return kind


def register_late(module: str, load: Callable[[], object]) -> None:
    """Call `load`, which registers kinds, once a network contains a class that `module` defines.

    A library such as torchvision is thus imported only where a network needs it.
    """
    _LATE[module] = load


def original_class(module: nn.Module) -> type[nn.Module]:
    """Return the class the module has, or had before it was compressed."""
    state = state_of(module)
    return type(module) if state is None else state.original


def kind_of(module: nn.Module) -> LayerKind | None:
    """Return the kind registered for the module's (original) class, or None."""
    original = original_class(module)
    load = _LATE.pop(original.__module__, None)
    if load is not None:
        load()
    return _KINDS.get(original)


def state_of(module: nn.Module) -> LayerState | None:
    """Return the state of a compressed layer, or None."""
    return cast("LayerState | None", module.__dict__.get("_asi"))


def attach_(module: nn.Module, state: LayerState) -> None:
    """Swap the module's class for its compressed class and attach the state.

    Raises UnsupportedLayerError, naming the layer, when the kind or the method does not support it.
    """
    kind = kind_of(module)
    if kind is None:
        raise UnsupportedLayerError(
            f"{state.name}: no compressed form of {type(module).__name__} is known; leave it out"
        )
    reason = kind.unsupported(module, state.method)
    if reason is not None:
        raise UnsupportedLayerError(f"{state.name}: {reason}")
    state.original = original_class(module)
    module.__dict__["_asi"] = state
    module.__class__ = kind.compressed


def detach_(module: nn.Module) -> None:
    """Restore the original class of a compressed module; do nothing to any other module."""
    state = state_of(module)
    if state is not None:
        module.__class__ = state.original
        del module.__dict__["_asi"]


def compressed_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module, LayerState]]:
    """Yield (name, module, state) of every compressed layer, in module order."""
    for name, module in model.named_modules():
        state = state_of(module)
        if state is not None:
            yield name, module, state


def slices_of(model: nn.Module) -> dict[str, Slice]:
    """Return the trained slice of each weight that is trained only in part, by the name of the weight."""
    found = {name: state.slice for name, _, state in compressed_layers(model) if state.slice is not None}
    return {f"{name}.weight" if name else "weight": part for name, part in found.items()}


def only_looks(hook: _Hook) -> _Hook:
    """Return the hook, marked as one that only observes: it does not prevent fusing."""
    hook.__dict__["only_looks"] = True
    return hook


def is_hooked(module: nn.Module, inputs_too: bool = True) -> bool:
    """Return whether a hook of the user's sees or changes the module's output or, with inputs_too, its input."""
    return has_hooks(module) and any(
        not _looks_only(hook) for hook in hooks_of(module, inputs_too=inputs_too)
    )


def _looks_only(hook: object) -> bool:
    return bool(getattr(hook, "only_looks", False))


def follow_(module: nn.Module, state: LayerState) -> None:
    """Commit the pending factors if an optimizer has moved the layer since they were found; every forward calls this.

    All micro-batches of one optimizer step start from the same factors, those of the step before. A forward pass
    without a backward pass changes nothing.
    """
    if state.pending is None and not state.method.warm_start:
        return  # this method finds no factors
    moves = _moves(module, state)
    if state.used and moves != state.moves:
        if state.pending is not None:
            state.factors, state.pending = state.pending, None
        state.used = False
    state.moves = moves


def go_along_(state: LayerState, device: torch.device) -> None:
    """Move a layer's state to the device it computes on, after its network was moved; every forward calls this."""
    if state.mean is not None:
        state.mean = _there(state.mean, device)
    if state.channels is not None and state.channels.device != device:
        shared = state.slice is not None and state.slice.index is state.channels
        state.channels = state.channels.to(device)
        if state.slice is not None and shared:
            state.slice = Slice(state.slice.dim, state.channels)  # one tensor stays one, and is counted once
    if state.slice is not None:
        state.slice = state.slice.on(device)
    if state.factors is None and state.pending is None:
        return
    for name in ("factors", "pending"):
        found: Factors | None = getattr(state, name)
        if found is not None and any(f is not None and f.device != device for f in found):
            setattr(state, name, [None if f is None else _there(f, device) for f in found])


def _there(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor if tensor.device == device else tensor.to(device)


def _moves(module: nn.Module, state: LayerState) -> int:
    """Return how many times the layer's trained parameters, fused modules' included, have been written to."""
    owners = (module, *state.fused)
    found = (p for owner in owners for p in owner._parameters.values() if p is not None and p.requires_grad)
    return sum(changes_of(p) for p in found)


def remember_constants_(model: nn.Module) -> None:
    """Let layers take the quicker way of simulated steps, until `detach_`.

    They cache values derived from frozen tensors until these are written to, compute images with their channels last,
    and hold more for a moment than a device would: whole masks, all rows of a gradient, products of pixels. They keep
    the same bytes, and results are equal to rounding.
    """
    for _, _, state in compressed_layers(model):
        state.constants = Constants()


def commit_factors_(model: nn.Module) -> None:
    """Commit the pending factors, so that the next forward pass starts from them; optimizers do this implicitly.

    Needed only with an optimizer that writes to parameters without autograd's knowledge (through `.data`).
    """
    for module in model.modules():
        state = state_of(module)
        if state is not None and state.pending is not None:
            state.factors, state.pending = state.pending, None


def factors(model: nn.Module) -> dict[str, list[Tensor]]:
    """Return copies of the warm factors, by layer name: one (d_m, r_m) tensor per mode. The next step starts from them.

    A mode without a warm factor gives an empty (0, 0) tensor. Layers without warm factors are left out.
    """
    for _, module, state in compressed_layers(model):
        follow_(module, state)
    return {
        name: [torch.empty(0, 0) if f is None else f.detach().clone() for f in state.factors]
        for name, _, state in compressed_layers(model)
        if state.method.warm_start and state.factors is not None and any(f is not None for f in state.factors)
    }


def load_factors_(model: nn.Module, saved: Mapping[str, Sequence[Tensor]]) -> None:
    """Load warm factors that `factors` returned, possibly from before a change of ranks.

    Where a rank is smaller now, only the leading columns are loaded, so that no step holds more than its plan.
    Where it is larger, the layer's next forward pass fills it up with a seeded random start. Raises ConfigError for a
    layer that is not compressed.
    """
    every = {name: (module, state) for name, module, state in compressed_layers(model)}
    unknown = [name for name in saved if name not in every]
    if unknown:
        raise ConfigError(
            f"factors for {unknown[0]!r}, which is not compressed; {nearest(unknown[0], every)}"
        )
    for name, tensors in saved.items():
        module, state = every[name]
        ranks = _canonical_ranks(state)
        state.factors = [
            t.detach()[:, : ranks[mode] if mode < len(ranks) else None].clone() if t.numel() else None
            for mode, t in enumerate(tensors)
        ]
        state.pending = None
        go_along_(state, device_of(module))


def _canonical_ranks(state: LayerState) -> tuple[int, ...]:
    """Return the ranks of a layer's method in (B, C, *S) order; empty for a method without ranks."""
    kind, ranks = _KINDS.get(state.original), state.method.mode_ranks
    return ranks if kind is None or not ranks else kind.canonical_order(ranks)
