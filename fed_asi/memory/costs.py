"""The cost of a training step: bytes kept and multiply-accumulates, counted layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fed_asi.layers import only_looks, original_class, state_of
from fed_asi.layers.classes import BATCH_NORMS
from fed_asi.layers.compressed import WeightKind, weight_kind_of
from fed_asi.layers.copying import copied
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import Frozen, LayerSize, Method, Vanilla
from fed_asi.methods.parts import side_by_side
from fed_asi.units import format_bytes


@dataclass(frozen=True, slots=True)
class LayerCost:
    """The cost of one call of one layer in one training step.

    published_bytes, published_flops: the papers' count; 0 for layers that are not trained convolutions.
    forward_macs, dw_macs, dx_macs, overhead_macs: multiply-accumulates actually done. forward_macs counts twice under
    gradient checkpointing, dx_macs is 0 if nothing before the layer trains, and overhead_macs is the compression of the
    input.
    """

    name: str
    kind: str
    method: Method
    published_bytes: int
    published_flops: int
    forward_macs: int
    dw_macs: int
    dx_macs: int
    overhead_macs: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layer in the whole step."""
        return self.forward_macs + self.dw_macs + self.dx_macs + self.overhead_macs


@dataclass(frozen=True, slots=True)
class Cost:
    """The totals of a training step; `layers` lists every call of a convolution or linear layer, in order.

    saved_bytes: measured; everything that autograd and the layers keep from forward to backward, loss included.
    uncounted: names of layers of other kinds with weights; no total includes their multiplications.
    """

    layers: tuple[LayerCost, ...]
    saved_bytes: int
    uncounted: tuple[str, ...] = ()

    @property
    def published_bytes(self) -> int:
        """Bytes of the inputs (or their compressed forms) of the trained convolutions: the papers' count."""
        return sum(layer.published_bytes for layer in self.layers)

    @property
    def published_flops(self) -> int:
        """FLOPs of forward, dW and compression of the trained convolutions: the papers' count."""
        return sum(layer.published_flops for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the trained layers: forward, dW, dX and compression."""
        return sum(layer.macs for layer in self.layers if layer.method.trains_weight)

    @property
    def step_macs(self) -> int:
        """Multiply-accumulates of all layers, including the trunk's forward, and dX through frozen layers."""
        return sum(layer.macs for layer in self.layers)

    def __str__(self) -> str:
        titles = " ".join(f"{title:>9}" for title in ("forward", "dW", "dX", "overhead"))
        head = f"{'layer':36} {'published':>10} {titles} (MMAC)  method"
        rows = [_row(layer) for layer in self.layers if layer.method != Frozen()]
        total = (
            f"saved {format_bytes(self.saved_bytes)}, published {format_bytes(self.published_bytes)}, "
            f"{self.macs / 1e9:.3f} GMAC trained layers, {self.step_macs / 1e9:.3f} GMAC whole step, "
            f"{self.published_flops / 1e9:.2f} published GFLOPs"
        )
        return "\n".join([head, *rows, total])


def _row(layer: LayerCost) -> str:
    macs = (layer.forward_macs, layer.dw_macs, layer.dx_macs, layer.overhead_macs)
    columns = " ".join(f"{value / 1e6:9.2f}" for value in macs)
    return f"{layer.name:36} {format_bytes(layer.published_bytes):>10} {columns}         {layer.method}"


def cost(model: nn.Module, x: Tensor) -> Cost:
    """Return the cost of one training step on the batch x, in bytes and multiply-accumulates.

    x: (B, ...), one batch; for a compressed model every micro-batch is counted. The model is not changed: a copy of it
    runs forward once, with fixed batch norms. Elementwise work is not counted.
    """
    model = copied(model).train()
    again = "recomputed_bytes" in model.__dict__  # gradient checkpointing: each forward runs twice
    if again:
        model(x)  # the first batch of a shape runs its parts once more, to measure them
    for module in model.modules():
        if isinstance(module, BATCH_NORMS):
            module.eval()
    found: list[LayerCost] = []
    handles = [
        module.register_forward_hook(_record(found, name))
        for name, module in model.named_modules()
        if weight_kind_of(module) is not None
    ]
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), ActivationMeter(model) as meter:
        loss = _loss(model(x))
    for handle in handles:
        handle.remove()
    del loss  # held until here: the meter counts what it keeps alive
    if again:
        first = next((i for i, layer in enumerate(found) if layer.method != Frozen()), len(found))
        found[first:] = [replace(layer, forward_macs=2 * layer.forward_macs) for layer in found[first:]]
    return Cost(tuple(found), meter.saved_bytes, tuple(_uncounted(model, {layer.name for layer in found})))


def _loss(scores: Tensor) -> Tensor:
    if scores.dim() != 2:
        return scores.sum()
    return nn.functional.cross_entropy(
        scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device)
    )


def _uncounted(model: nn.Module, counted: set[str]) -> Iterator[str]:
    for name, module in model.named_modules():
        weighted = any(p is not None and p.dim() > 1 for p in module._parameters.values())
        if weighted and name not in counted:
            yield name


def _record(found: list[LayerCost], name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], _out: Tensor) -> None:
        x: Tensor = args[0]
        kind, state, weight = weight_kind_of(module), state_of(module), module.weight
        if kind is None:
            return
        trains = isinstance(weight, Tensor) and weight.requires_grad
        method = state.method if state is not None else Vanilla() if trains else Frozen()
        needs_dx = x.requires_grad
        size = kind.size(module, x.shape)
        if state is not None and state.pooled:  # the layer runs on its input's spatial mean
            x = x.mean(dim=tuple(range(2, x.dim())), keepdim=True)
            size = replace(size, dims=tuple(x.shape), out=(*size.out[:2], *x.shape[2:]))
        call = _Call(name, module, kind, method.reordered(kind.canonical_order), x.detach())
        parts = side_by_side(size.dims[0], None if state is None else state.micro_batch)
        found.append(_sum([(m, call.cost(_with_batch(size, b))) for m, b in parts], needs_dx, method))

    return only_looks(hook)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a layer. method: with ranks in (B, C, *S) order. x: its input, in its own order."""

    name: str
    module: nn.Module
    kind: WeightKind
    method: Method
    x: Tensor

    def ranks(self) -> tuple[int, ...]:
        """The ranks of the kept form; computed from x for methods whose ranks depend on the data."""
        state = state_of(self.module)
        if state is None or not self.method.trains_weight:
            return ()
        return self.method.found_ranks(self.x.movedim(self.kind.channel_dim, 1), replace(state))

    def cost(self, size: LayerSize) -> LayerCost:
        """Return the cost of a micro-batch of this size."""
        method, ranks, published = self.method, self.ranks(), self.kind.published
        return LayerCost(
            self.name,
            original_class(self.module).__name__,
            method,
            method.published_bytes(size, ranks, self.x.element_size()) if published else 0,
            method.published_flops(size, ranks) if published else 0,
            size.forward_macs,
            method.dw_macs(size, ranks),
            method.dx_macs(size),
            method.overhead_macs(size, ranks) if method.trains_weight else 0,
        )


def _with_batch(size: LayerSize, batch: int) -> LayerSize:
    return replace(size, dims=(batch, *size.dims[1:]), out=(batch, *size.out[1:]))


def _sum(parts: list[tuple[int, LayerCost]], needs_dx: bool, method: Method) -> LayerCost:
    """Return the sum over (number of micro-batches, cost of one). method: the method of the layer."""

    def total(name: str) -> int:
        return sum(times * int(getattr(one, name)) for times, one in parts)

    first = parts[0][1]
    return LayerCost(
        first.name,
        first.kind,
        method,
        total("published_bytes"),
        total("published_flops"),
        total("forward_macs"),
        total("dw_macs"),
        total("dx_macs") if needs_dx else 0,
        total("overhead_macs"),
    )
