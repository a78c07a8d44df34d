"""What every compressed layer shares: its state, the registry of kinds, and the warm factors.

A layer is compressed by swapping `module.__class__` for a module-level class that derives from the
original and hanging a `LayerState` on it as `module._asi`. Parameters keep their identity, and
state_dict keys, deepcopy and pickle work as before.
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
from fed_asi.layers.constants import Constants
from fed_asi.layers.gradient import Sink
from fed_asi.layers.slices import Slice
from fed_asi.methods import Method
from fed_asi.torch_private import changes_of, has_hooks, hooks_of
from fed_asi.tucker import Factors


@dataclass(slots=True)
class LayerState:
    """What a compressed layer remembers; never a Parameter or a buffer.

    name: qualified name in the model, for messages.
    method: how the input is kept.
    original: the class the module had before.
    seed: the run's seed for this layer; the only source of its random starts.
    micro_batch: a batch of N > micro_batch samples is treated as ceil(N / micro_batch) independent
        micro-batches side by side, each with its own core and factors. None: one.
    fused: the modules this layer computes too, in order: (), (bn,), (bn, act) or (act,). Their
        own classes are swapped for pass-through ones.
    pooled: the output only feeds a global average pool, so the layer may run on its input's mean.
    watched: the modules between which nobody may look while they are computed as one: the fused ones and, of a
        pooled layer, those up to its pool.
    apart: in the newest forward somebody looked, so that the fused modules computed for themselves.
    mean: (C,) fixed channel mean of the input, for centred methods.
    factors: committed warm factors, one a mode of the input, None where a mode has none.
    pending: the factors of the newest micro-batch; the committed ones once an optimizer has moved the weights.
    moves: how often the layer's trained parameters had been written to when `pending` was found.
    found, used: the number of the forward that found `pending`, and whether its backward has run.
    published_bytes: of the kept forms alone, without masks: what the papers count, over all calls in a meter's block.
    channels, slice: the input channels kept, (k,), and where in the weight they are; None: all of them.
    sink: who takes the layer's gradients in place of autograd, while a step runs that moves weights at once.
    constants: what the layer's frozen numbers come to, where steps are simulated; None: made anew in each of them.
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
    channels: Tensor | None = None
    slice: Slice | None = None


class LayerKind(ABC):
    """One kind of layer: what it is swapped for, what it cannot do, what it keeps.

    A kind sets `original` (matched exactly, as a subclass may have another forward) and
    `compressed`, and overrides `unsupported` and `saved_bytes`.
    """

    original: ClassVar[type[nn.Module]]
    compressed: ClassVar[type[nn.Module]]
    state: ClassVar[type[LayerState]] = LayerState

    @abstractmethod
    def unsupported(self, module: nn.Module, method: Method) -> str | None:
        """Return why `module` cannot be kept by `method`, and what to do; None when it can."""

    @abstractmethod
    def saved_bytes(
        self,
        module: nn.Module,
        method: Method,
        input_shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        fused: Sequence[nn.Module] = (),
    ) -> int:
        """Return the bytes the layer keeps from forward to backward for one micro-batch.

        input_shape: of the layer's input, batch first.
        fused: the modules computed with it, as in `LayerState.fused`.
        Exact for methods with fixed sizes; an upper bound for HOSVD.
        """

    def canonical_order(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Return one rank a mode, given in the layer's own order, as (B, C, *S)."""
        return ranks

    def own_order(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Return one rank a mode, given as (B, C, *S), in the layer's own order."""
        return ranks

    def remark(self, module: nn.Module, method: Method) -> str:
        """Return what a reader of the report should know about this layer under `method`, or an empty text."""
        return ""


_Hook = TypeVar("_Hook", bound=Callable[..., object])
_KINDS: dict[type[nn.Module], LayerKind] = {}
_LATE: dict[str, Callable[[], object]] = {}


def register(kind: LayerKind) -> LayerKind:
    """Return `kind`, from now on used for modules of its original class."""
    _KINDS[kind.original] = kind
    return kind


def register_late(module: str, load: Callable[[], object]) -> None:
    """Let `load` register the kinds for classes that `module` defines, when a network first holds one.

    So that a library such as torchvision is never imported for its own sake.
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
    """Swap the module's class for its compressed one and hang the state on it.

    Raises UnsupportedLayerError, naming the layer, when the kind or method cannot do it.
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
    """Give a compressed module its original class back; others are left alone."""
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
    """Return what trains of the weights of which only a part does, by the weights' names."""
    found = {name: state.slice for name, _, state in compressed_layers(model) if state.slice is not None}
    return {f"{name}.weight" if name else "weight": part for name, part in found.items()}


def only_looks(hook: _Hook) -> _Hook:
    """Return the hook, marked as one that changes nothing and does not mind what is computed as one."""
    hook.__dict__["only_looks"] = True
    return hook


def is_hooked(module: nn.Module, inputs_too: bool = True) -> bool:
    """Return whether a hook of somebody else's sees or changes what the module gives, or also what it gets."""
    return has_hooks(module) and any(
        not _looks_only(hook) for hook in hooks_of(module, inputs_too=inputs_too)
    )


def _looks_only(hook: object) -> bool:
    return bool(getattr(hook, "only_looks", False))


def follow_(module: nn.Module, state: LayerState) -> None:
    """Commit the newest factors if an optimizer has moved the layer since they were found; called by every forward.

    All micro-batches of one optimizer step start from the same factors, those of the step before. A forward
    without its backward moves nothing.
    """
    if state.pending is None and not state.method.warm_start:
        return  # nothing is ever found
    moves = _moves(module, state)
    if state.used and moves != state.moves:
        if state.pending is not None:
            state.factors, state.pending = state.pending, None
        state.used = False
    state.moves = moves


def go_along_(state: LayerState, device: torch.device) -> None:
    """Bring what a layer remembers to where it computes, after its network was moved; called by every forward."""
    if state.mean is not None:
        state.mean = _there(state.mean, device)
    if state.channels is not None:
        state.channels = _there(state.channels, device)
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
    """Return how often the layer's trained parameters, and those of modules fused into it, were written to."""
    owners = (module, *state.fused)
    found = (p for owner in owners for p in owner._parameters.values() if p is not None and p.requires_grad)
    return sum(changes_of(p) for p in found)


def remember_constants_(model: nn.Module) -> None:
    """Let layers remember what their frozen numbers come to, until `detach_`: for steps that are simulated."""
    for _, _, state in compressed_layers(model):
        state.constants = Constants()


def commit_factors_(model: nn.Module) -> None:
    """Make the newest factors the ones that the next forward starts from, as an optimizer step does by itself.

    Needed only with an optimizer that writes to parameters behind autograd's back (through `.data`).
    """
    for module in model.modules():
        state = state_of(module)
        if state is not None and state.pending is not None:
            state.factors, state.pending = state.pending, None


def factors(model: nn.Module) -> dict[str, list[Tensor]]:
    """Return copies of the warm factors by layer name, one (d_m, r_m) tensor a mode: what the next step starts from.

    A mode without a warm factor gives an empty (0, 0) tensor. Layers without any are left out.
    """
    for _, module, state in compressed_layers(model):
        follow_(module, state)
    return {
        name: [torch.empty(0, 0) if f is None else f.detach().clone() for f in state.factors]
        for name, _, state in compressed_layers(model)
        if state.method.warm_start and state.factors is not None and any(f is not None for f in state.factors)
    }


def load_factors_(model: nn.Module, saved: Mapping[str, Sequence[Tensor]]) -> None:
    """Take over warm factors that `factors` gave, perhaps from before a change of ranks.

    Ranks that shrank keep the leading columns, now, so that no step holds more than its plan; ranks that grew
    are filled up with a seeded random start in the layer's next forward pass. Raises ConfigError for a layer
    that is not compressed.
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
    """Return the ranks of a layer's method in (B, C, *S) order; none where it has no ranks."""
    kind, ranks = _KINDS.get(state.original), state.method.mode_ranks
    return ranks if kind is None or not ranks else kind.canonical_order(ranks)
