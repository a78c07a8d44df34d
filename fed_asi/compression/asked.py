"""What a method, a mapping or a plan asks of each layer, and which layers therefore train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.utils import parametrize

from fed_asi import layers
from fed_asi.compression.graph import Graph
from fed_asi.compression.tune import tune_
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.layers.classes import CONVOLUTIONS
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.methods import Method, Vanilla
from fed_asi.methods.bases import Bases


@runtime_checkable
class PlanLike(Protocol):
    """The parts of a plan that compress_ reads: methods by layer, the micro-batch, and means by layer.

    A plan with methods that choose channels also has `energies`: by layer, the centred gradient energy of each
    channel.
    """

    @property
    def methods(self) -> Mapping[str, Method]:
        """Layer name -> how its input is kept; layers left out are frozen."""

    @property
    def micro_batch(self) -> int:
        """Samples of one micro-batch."""

    @property
    def means(self) -> Mapping[str, Sequence[float]]:
        """Layer name -> the fixed mean of each channel of its input, for methods that centre."""

    @property
    def bases(self) -> Mapping[str, Bases]:
        """Layer name -> the factors that calibration fixed for its method."""


def refusal(name: str, module: nn.Module, method: Method, graph: Graph) -> str | None:
    """Return why `method` cannot keep the input of a layer; None where it can."""
    kind = layers.kind_of(module)
    if parametrize.is_parametrized(module, "weight"):
        return "its weight is not a plain parameter (parametrised): as in plain PyTorch"
    if kind is None:
        return f"no compressed form of {type(module).__name__} is known"
    if method.needs_pool and name not in graph.pooled:
        return "its output does not only feed a global average pool, so the spatial mean would not be exact"
    return kind.unsupported(module, method)


def trains(module: nn.Module, *keys: str) -> bool:
    """Return whether any parameter of the module itself, or any of those in `keys`, is trained."""
    found = [module._parameters.get(key) for key in keys or module._parameters]
    return any(p is not None and p.requires_grad for p in found)


def is_weighted(module: nn.Module) -> bool:
    """Return whether the module is of a kind whose input is kept by a method."""
    return weight_kind_of(module) is not None or isinstance(module, (*CONVOLUTIONS, nn.Linear))


@dataclass(frozen=True, slots=True)
class Asked:
    """Methods by layer. `strict` layers were named by the caller: what they cannot do is an error."""

    methods: Mapping[str, Method]
    strict: bool


def asked_for(model: nn.Module, graph: Graph, spec: PlanLike | Method | Mapping[str, Method]) -> Asked:
    """Return what the caller asks of each layer, having set what trains."""
    if isinstance(spec, Method):
        return Asked(_everywhere(model, graph, spec), False)
    methods = spec if isinstance(spec, Mapping) else spec.methods
    parsed = {name: Method.parse(method) for name, method in methods.items()}
    if not any(method.trains_bias for method in parsed.values()):
        raise ConfigError("the plan trains no layer; name at least one with a method that trains it")
    tune_(model, parsed, graph)
    return Asked(parsed, True)


def _everywhere(model: nn.Module, graph: Graph, method: Method) -> dict[str, Method]:
    """Return one method for every layer that trains now and can take it; the other trained layers are kept whole."""
    trained = {
        name: module
        for name, module in model.named_modules()
        if is_weighted(module) and trains(module, "weight")
    }
    targets = {n: m for n, m in trained.items() if isinstance(m, CONVOLUTIONS)} or trained
    if not targets:
        raise ConfigError("no convolution or linear layer is trained; call tune_last_ first")
    accepted = {n: method for n, module in targets.items() if refusal(n, module, method, graph) is None}
    if not accepted:
        name, module = next(iter(targets.items()))
        reason = refusal(name, module, method, graph)
        raise UnsupportedLayerError(f"{method.kind!r} names none of the trained layers;  {name}: {reason}")
    for name in accepted:
        if not method.trains_weight:
            _freeze_weight_(model, name, method, graph)
        elif not method.trains_scale and name in graph.norms:
            model.get_submodule(graph.norms[name]).get_parameter("weight").requires_grad_(False)
    return {name: accepted.get(name, Vanilla()) for name in trained}


def _freeze_weight_(model: nn.Module, name: str, method: Method, graph: Graph) -> None:
    owners = [name, *([graph.norms[name]] if name in graph.norms else [])]
    for owner in owners:
        for key, parameter in model.get_submodule(owner)._parameters.items():
            if parameter is not None and (key == "weight" or not method.trains_bias):
                parameter.requires_grad_(False)
