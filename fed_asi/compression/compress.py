"""Make a network keep only what its plan says between forward and backward, in place and reversibly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fed_asi import layers, seeds
from fed_asi.compression.graph import Graph, analyse
from fed_asi.compression.report import CompressionReport, Line, describe
from fed_asi.compression.tune import tune_
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.layers.absorbed import absorb_, can_absorb
from fed_asi.layers.classes import BATCH_NORM, BATCH_NORMS, CONVOLUTIONS
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.layers.fused import reason_not_fusable
from fed_asi.layers.norm import fix_
from fed_asi.methods import BiasOnly, Frozen, Method, Quantized, Vanilla
from fed_asi.methods.bases import Bases, factors_of

_TRAINED_BEFORE = "_asi_trained_before"


@runtime_checkable
class PlanLike(Protocol):
    """What compress_ reads of a plan: methods by layer, the micro-batch, and means by layer."""

    @property
    def methods(self) -> Mapping[str, Method]:
        """Layer name -> how its input is kept; layers left out are frozen."""

    @property
    def micro_batch(self) -> int:
        """Samples of one micro-batch."""

    @property
    def means(self) -> Mapping[str, Sequence[float]]:
        """Layer name -> the fixed mean per channel of its input, for centered methods."""

    @property
    def bases(self) -> Mapping[str, Bases]:
        """Layer name -> the factors that calibration fixed for its method."""


def compress_(
    model: nn.Module,
    spec: PlanLike | Method | Mapping[str, Method],
    *,
    seed: int = 0,
    micro_batch: int | None = None,
    means: Mapping[str, Sequence[float] | Tensor] | None = None,
    smooth_bits: int | None = None,
) -> CompressionReport:
    """Compress `model` in place and return what happened to every layer.

    spec: a method for every trained convolution (every trained Linear where no convolution is trained);
        or a plan, or layer name -> method, which also decide what is trained: exactly the layers named, with
        the batch norms behind them. A compressed model is uncompressed first.
    seed: of the layers' random starts and dropout. micro_batch: batches above it are treated as independent
        micro-batches side by side. means: channel means for centered methods; a plan brings its own.
    smooth_bits: 8 or 4 to keep the slopes of Hardswish, SiLU, GELU and the like approximately; None keeps
        them exact, at the size of their input.
    Every batch norm of the model is fixed: it uses its running statistics in training mode too.
    Raises ConfigError and UnsupportedLayerError, with the layer's name, and leaves the model as it was.
    """
    uncompress_(model)
    graph = analyse(model)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    bases: Mapping[str, Bases] = {}
    if isinstance(spec, PlanLike):
        micro_batch = spec.micro_batch if micro_batch is None else micro_batch
        means = {**spec.means, **(means or {})}
        bases = spec.bases
    model.__dict__[_TRAINED_BEFORE] = before
    try:
        work = _Work(model, graph, seed, micro_batch, means or {}, bases, smooth_bits)
        work.run(_asked_for(model, graph, spec))
    except BaseException:
        uncompress_(model)
        raise
    trained = tuple(name for name, p in model.named_parameters() if p.requires_grad)
    return CompressionReport(tuple(work.lines), trained, seed, micro_batch, graph.reason)


def uncompress_(model: nn.Module) -> None:
    """Give every layer its own class back, and every parameter its `requires_grad` from before compress_."""
    for module in model.modules():
        layers.detach_(module)
    before: Mapping[str, bool] = model.__dict__.pop(_TRAINED_BEFORE, {})
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(before.get(name, parameter.requires_grad))


def check_gradients(model: nn.Module) -> None:
    """Raise UnsupportedLayerError when a trained parameter has no gradient after a first backward."""
    missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UnsupportedLayerError(
            f"trained, but without a gradient: {', '.join(missing[:3])}{more}; the forward does "
            "not use them, so freeze them or leave them out of the plan"
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """Methods by layer; `strict` ones were named, so that what they cannot do is an error."""

    methods: Mapping[str, Method]
    strict: bool


def _asked_for(model: nn.Module, graph: Graph, spec: PlanLike | Method | Mapping[str, Method]) -> _Asked:
    if isinstance(spec, Method):
        return _Asked(_everywhere(model, graph, spec), False)
    methods = spec if isinstance(spec, Mapping) else spec.methods
    parsed = {name: Method.parse(method) for name, method in methods.items()}
    if not any(method.trains_bias for method in parsed.values()):
        raise ConfigError("the plan trains no layer; name at least one with a method that trains it")
    tune_(model, parsed, graph)
    return _Asked(parsed, True)


def _everywhere(model: nn.Module, graph: Graph, method: Method) -> dict[str, Method]:
    """Return what one method means for the layers that train now; the others of them are kept whole."""
    trained = {
        name: module
        for name, module in model.named_modules()
        if _weighted(module) and _trains(module, "weight")
    }
    targets = {n: m for n, m in trained.items() if isinstance(m, CONVOLUTIONS)} or trained
    if not targets:
        raise ConfigError("no convolution or linear layer is trained; call tune_last_ first")
    accepted = {n: method for n, module in targets.items() if _refusal(n, module, method, graph) is None}
    if not accepted:
        name, module = next(iter(targets.items()))
        reason = _refusal(name, module, method, graph)
        raise UnsupportedLayerError(f"{method.kind!r} fits none of the trained layers; {name}: {reason}")
    if not method.trains_weight:
        for name in accepted:
            _freeze_weight_(model, name, method, graph)
    return {name: accepted.get(name, Vanilla()) for name in trained}


def _freeze_weight_(model: nn.Module, name: str, method: Method, graph: Graph) -> None:
    owners = [name, *([graph.norms[name]] if name in graph.norms else [])]
    for owner in owners:
        for key, parameter in model.get_submodule(owner)._parameters.items():
            if parameter is not None and (key == "weight" or not method.trains_bias):
                parameter.requires_grad_(False)


def _refusal(name: str, module: nn.Module, method: Method, graph: Graph) -> str | None:
    """Return why a layer cannot be kept by `method`; None when it can."""
    kind = layers.kind_of(module)
    if parametrize.is_parametrized(module, "weight"):
        return "its weight is no plain parameter (parametrised): as in plain PyTorch"
    if kind is None:
        return f"no compressed form of {type(module).__name__} is known"
    if method.needs_pool and name not in graph.pooled:
        return "its output does not only feed a global average pool, so the spatial mean would not be exact"
    return kind.unsupported(module, method)


def _trains(module: nn.Module, *keys: str) -> bool:
    found = [module._parameters.get(key) for key in keys or module._parameters]
    return any(p is not None and p.requires_grad for p in found)


class _Work:
    """One compress_ in progress: swaps the layers and writes a line for each."""

    def __init__(
        self,
        model: nn.Module,
        graph: Graph,
        seed: int,
        micro_batch: int | None,
        means: Mapping[str, Any],
        bases: Mapping[str, Bases],
        smooth_bits: int | None,
    ) -> None:
        self.modules = dict(model.named_modules())
        self.graph, self.seed, self.micro_batch = graph, seed, micro_batch
        self.means, self.bases = means, bases
        self.smooth = None if smooth_bits is None else Quantized(smooth_bits)
        self.lines: list[Line] = []
        self.absorbed: set[str] = set()

    def run(self, asked: _Asked) -> None:
        """Swap every layer that has a compressed form, from the first trained one on."""
        self._check_names(asked)
        order = self._order()
        first = min((order[n] for n, m in self.modules.items() if _trains(m)), default=0)
        for name, module in sorted(self.modules.items(), key=lambda item: order[item[0]]):
            if name in self.absorbed or (not list(module._parameters) and list(module.children())):
                continue
            # A module called again may be called behind the first trained layer too.
            early = order[name] < first and name not in self.graph.repeated
            if early and not isinstance(module, BATCH_NORM) and not _draws(module):
                self._line(name, module, "left", reason="before the first trained layer, so it keeps nothing")
            else:
                self._swap(name, module, asked)

    def _check_names(self, asked: _Asked) -> None:
        for name, method in asked.methods.items():
            module = self.modules[name]
            reason = _refusal(name, module, method, self.graph)
            if asked.strict and reason is not None and _weighted(module):
                raise UnsupportedLayerError(f"{name}: {reason}")

    def _order(self) -> dict[str, int]:
        """Return the place of every module in the forward; for those inside a traced leaf, the leaf's."""
        place = {name: i for i, name in enumerate(self.graph.order)}
        found: dict[str, int] = {}
        for name in self.modules:
            parent = name.rpartition(".")[0]
            found[name] = place.get(name, found.get(parent, -1) if name else -1)
        return found

    def _swap(self, name: str, module: nn.Module, asked: _Asked) -> None:
        if _weighted(module):
            method = asked.methods.get(name) or (BiasOnly() if _trains(module, "bias") else Frozen())
            self._swap_weighted(name, module, method)
            return
        kind = layers.kind_of(module)
        reason = None if kind is None else kind.unsupported(module, self.smooth or Frozen())
        if kind is None and fix_(module, name):
            self._line(
                name, module, "left", reason="its statistics are fixed; it keeps what plain PyTorch keeps"
            )
            return
        if kind is None or reason is not None:
            if type(module).forward is not nn.Module.forward:
                self._line(name, module, "left", reason=reason or "no compressed form; as in plain PyTorch")
            return
        self._attach(name, module, self.smooth or Frozen())

    def _swap_weighted(self, name: str, module: nn.Module, method: Method) -> None:
        reason = _refusal(name, module, method, self.graph)
        if reason is not None:
            self._line(name, module, "left", reason=reason)
            return
        fused = self._fused(name, method)
        pooled = name in self.graph.pooled and _pools_first(module, method)
        self._attach(name, module, method.pooled() if pooled else method, fused, pooled)
        owner = cast(layers.LayerState, layers.state_of(module))
        for member in fused:
            absorb_(self.modules[member], member, owner)
            self.absorbed.add(member)
            self._line(member, self.modules[member], "fused", into=name)

    def _fused(self, name: str, method: Method) -> tuple[str, ...]:
        """Return the modules behind the layer that it can compute itself without keeping more."""
        chain = self.graph.fusable.get(name, ())
        while chain:
            members = [self.modules[member] for member in chain]
            norm = members[0] if isinstance(members[0], BATCH_NORMS) else None
            needs_input = norm is not None and _trains(norm, "weight") and not method.trains_weight
            if needs_input:
                return ()
            if all(map(can_absorb, members)) and reason_not_fusable(members) is None:
                return chain
            chain = chain[:-1]
        return ()

    def _attach(
        self,
        name: str,
        module: nn.Module,
        method: Method,
        fused: tuple[str, ...] = (),
        pooled: bool = False,
    ) -> None:
        kind = layers.kind_of(module)
        make = layers.LayerState if kind is None else kind.state
        state = make(
            name=name,
            method=method,
            original=type(module),
            seed=seeds.derive(self.seed, "layer", name),
            micro_batch=self.micro_batch,
            fused=tuple(self.modules[member] for member in fused),
            pooled=pooled,
            watched=tuple(
                self.modules[one] for one in (*fused, *(self.graph.pooled[name] if pooled else ()))
            ),
            mean=self._mean(name, module, method),
            factors=factors_of(self.bases[name]) if name in self.bases else None,
        )
        layers.attach_(module, state)
        self._line(name, module, "compressed", method=method)

    def _mean(self, name: str, module: nn.Module, method: Method) -> Tensor | None:
        if not method.centers or not _weighted(module):
            return None
        if name not in self.means:
            raise ConfigError(f"{name}: {method} is centered, but no mean was given for it; calibrate first")
        weight = module._parameters["weight"]
        return torch.as_tensor(self.means[name]).detach().to(weight)

    def _line(
        self,
        name: str,
        module: nn.Module,
        action: str,
        *,
        method: Method | None = None,
        reason: str = "",
        into: str = "",
    ) -> None:
        text = reason or describe(module, method, into)
        self.lines.append(Line(name, layers.original_class(module).__name__, action, str(method or ""), text))


def _draws(module: nn.Module) -> bool:
    """Return whether a layer is random, and so must draw from its own stream wherever it stands."""
    kind = layers.kind_of(module)
    return kind is not None and kind.state is not layers.LayerState


def _pools_first(module: nn.Module, method: Method) -> bool:
    """Return whether the layer shall see only the mean of its input: exact, and fewer bytes and products."""
    kind = weight_kind_of(module)
    return method.pools_first and kind is not None and kind.traits(module).poolable


def _weighted(module: nn.Module) -> bool:
    return weight_kind_of(module) is not None or isinstance(module, (*CONVOLUTIONS, nn.Linear))
