"""Inputs and output gradients of a network's layers on a calibration batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.compression.graph import Graph
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.layers.compressed import WeightKind, weight_kind_of
from fed_asi.methods import Method

_CHUNK = 32


def record(
    model: nn.Module,
    graph: Graph,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> list[Record]:
    """Return inputs and output gradients of the named layers, in the order of the forward pass.

    The gradients are those of the mean loss over the whole batch; layers before the first named one keep nothing.
    Raises ConfigError for a layer whose numbers overflow, as its forms could not be compared.
    """
    modules = dict(model.named_modules())
    parts: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in names}
    order: list[str] = []
    for start in range(0, len(x), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        share = len(x[chunk]) / len(x)
        for name, part in _record_chunk(model, graph, names, x[chunk], y[chunk], loss, share).items():
            parts[name].append(part)
            if name not in order:
                order.append(name)
    found = [_join(name, modules, graph, parts[name]) for name in order]
    for item in found:
        _check_finite(item)
    return found


def _check_finite(item: Record) -> None:
    """Raise ConfigError if a squared norm is not finite, as decompositions and errors are computed from it."""
    for what, values in (("input", item.x), ("output gradient", item.g)):
        if not bool(torch.isfinite(values.square().sum())):
            raise ConfigError(
                f"{item.name}: the squared norm of its {what} on the calibration images is infinite or no number; "
                "the weights are too large: train with a lower learning rate before, or take other weights"
            )


def _record_chunk(
    model: nn.Module,
    graph: Graph,
    names: Sequence[str],
    x: Tensor,
    y: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    share: float,
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    modules = dict(model.named_modules())
    inputs: dict[str, Tensor] = {}
    taps: dict[str, Tensor] = {}

    def tap(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
            if name in parts_of:
                inputs[name] = args[0].detach().clone()
            taps[name] = output if output.requires_grad else output.detach().requires_grad_()
            return taps[name].clone()

        return hook

    parts_of = set(names)
    norms = {name: graph.norms[name] for name in names if name in graph.norms}
    handles = [modules[n].register_forward_hook(tap(n)) for n in dict.fromkeys([*names, *norms.values()])]
    try:
        with torch.enable_grad():
            value = loss(model(x), y) * share
    finally:
        for handle in handles:
            handle.remove()
    gradients = torch.autograd.grad(value, list(taps.values()), allow_unused=True)
    by_name = {
        n: torch.zeros_like(t) if g is None else g for (n, t), g in zip(taps.items(), gradients, strict=True)
    }
    return {n: (inputs[n], by_name[n], _bias_gradient(by_name[norms.get(n, n)], modules[n])) for n in inputs}


def _bias_gradient(g: Tensor, module: nn.Module) -> Tensor:
    """Return an output gradient summed over everything but its channels, (C',)."""
    kind = weight_kind_of(module)
    return g.transpose(0, 1 if kind is None else kind.channel_dim).flatten(1).sum(1)


def _join(
    name: str, modules: Mapping[str, nn.Module], graph: Graph, parts: Sequence[tuple[Tensor, Tensor, Tensor]]
) -> Record:
    xs, gs, biases = zip(*parts, strict=True)
    bias = torch.stack(biases).sum(0)
    trainable = name in graph.norms or getattr(modules[name], "bias", None) is not None
    x, g = torch.cat(xs), torch.cat(gs)
    whole_shape = tuple(x.shape[1:])
    kind = weight_kind_of(modules[name])
    pooled = name in graph.pooled and kind is not None and kind.traits(modules[name]).poolable
    if pooled:
        x, g = _over_space(x, torch.mean), _over_space(g, torch.sum)
    parameters, scales = bias.numel() if trainable else 0, bias.numel() if name in graph.norms else 0
    return Record(name, modules[name], x, g, bias, parameters, whole_shape, pooled, scales)


def _over_space(x: Tensor, reduce: Callable[..., Tensor]) -> Tensor:
    """Return x: (N, C, *S) reduced over space to (N, C, 1, ...)."""
    return reduce(x, dim=tuple(range(2, x.dim())), keepdim=True)


@dataclass(slots=True)
class Record:
    """What calibration recorded of one layer.

    x: (N, ...), its input. g: (N, ...), the loss's gradient with respect to its output. bias_gradient: (C',), of the
    bias of its batch norm if it has one, else of its own. pooled: whether its output is only averaged over space; then
    x and g are those of the pooled input, which is exact.
    """

    name: str
    module: nn.Module
    x: Tensor
    g: Tensor
    bias_gradient: Tensor
    bias_parameters: int
    whole_shape: tuple[int, ...]
    pooled: bool = False
    scale_parameters: int = 0
    kind: WeightKind = field(init=False)

    def __post_init__(self) -> None:
        """Look up the layer's kind. Raises UnsupportedLayerError if none is registered."""
        found = weight_kind_of(self.module)
        if found is None:
            raise UnsupportedLayerError(
                f"{self.name}: no compressed form of {type(self.module).__name__} is known"
            )
        self.kind = found

    def canonical(self) -> Tensor:
        """Return the input as (N, C, *S), channels second, as the layers keep it."""
        return self.x.movedim(self.kind.channel_dim, 1)

    def kept_shape(self, method: Method) -> tuple[int, ...]:
        """Return the shape, for one image, of what the method keeps: pooled first if that is exact."""
        return tuple(self.x.shape[1:]) if method.pools_first else self.whole_shape

    def mean(self) -> Tensor:
        """Return the mean of the input per channel, (C,)."""
        return self.canonical().transpose(0, 1).flatten(1).mean(1)

    def weight_gradient(self, x: Tensor) -> Tensor:
        """Return dW for an input x: (N, C, *S) at the recorded output gradient."""
        return self.kind.weight_gradient(self.module, x, self.g)

    def weight(self) -> Tensor:
        """Return the layer's weight. Raises UnsupportedLayerError if it has none."""
        weight = self.module.weight
        if not isinstance(weight, Tensor):
            raise UnsupportedLayerError(f"{self.name} has no weight to train")
        return weight


def constant_input(mean: Tensor, x: Tensor) -> Tensor:
    """Return an input like x: (N, C, *S) that is its channel mean everywhere."""
    return mean.view(1, -1, *[1] * (x.dim() - 2)).expand_as(x).contiguous()


def grouped(x: Tensor, micro_batch: int) -> Tensor:
    """Return x: (N, ...) as (m, micro_batch, ...), without an incomplete last micro-batch."""
    count = len(x) // micro_batch
    return x[: count * micro_batch].reshape(count, micro_batch, *x.shape[1:])
