"""The arena of a step: its size, where every tensor lies in it, and what fills it at the peak."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.errors import UnsupportedLayerError
from fed_asi.memory.arena.address import Address, address_of
from fed_asi.memory.arena.lifetimes import Lifetime, lifetimes, saved_bytes
from fed_asi.memory.arena.offsets import ALIGNMENT, lower_bound, offsets, top
from fed_asi.memory.arena.step import Gradients, Loss, MakeMover, MakeOptimizer, record_inference, record_step
from fed_asi.memory.arena.trace import Trace
from fed_asi.memory.stored import Format, activation_bytes, format_of
from fed_asi.units import format_bytes

SHOWN = 8  # tensors that the text lists
REMEMBERED = 256  # arenas cached in this process


@dataclass(frozen=True, slots=True)
class ArenaTensor(Lifetime):
    """A tensor with a place in the arena, `offset` bytes from its start; see Lifetime for the other fields."""

    offset: int


@dataclass(frozen=True, slots=True)
class Arena:
    """The memory of everything transient in a step, in bytes.

    bytes: size of the layout found. lower_bound_bytes: peak of the bytes needed at one time; no layout takes less.
    saved_bytes: alive between forward and backward, including factors that layers hold; 0 for an inference.
    peak: the operation at which most is needed; `at_peak` lists its tensors, the largest first.
    trained_bytes to constant_bytes: what is not in the arena, as it was before the step. operations: their names.
    data_dependent: layers whose operations depend on the data, so that the arena holds for this batch only.
    """

    bytes: int
    lower_bound_bytes: int
    saved_bytes: int
    alignment: int
    peak: int
    tensors: tuple[ArenaTensor, ...]
    operations: tuple[str, ...]
    trained_bytes: int
    frozen_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    mean_bytes: int
    factor_bytes: int
    constant_bytes: int
    data_dependent: tuple[str, ...] = ()

    @property
    def at_peak(self) -> tuple[ArenaTensor, ...]:
        """The tensors alive at the peak, the largest first."""
        return self.alive(self.peak)

    def alive(self, operation: int) -> tuple[ArenaTensor, ...]:
        """Return the tensors needed at an operation, given by its number, the largest first."""
        found = (one for one in self.tensors if one.first <= operation <= one.last)
        return tuple(sorted(found, key=lambda one: (-one.bytes, one.offset)))

    def __str__(self) -> str:
        alive = self.at_peak
        lines = [
            f"arena {format_bytes(self.bytes)}, most needed at one time {format_bytes(self.lower_bound_bytes)}, "
            f"saved for the backward {format_bytes(self.saved_bytes)}",
            f"fullest at {self.operations[self.peak] if self.operations else 'no operation'}:",
            *(f"{format_bytes(one.bytes):>12} at {one.offset:>9}  {one.name}" for one in alive[:SHOWN]),
        ]
        rest = alive[SHOWN:]
        if rest:
            lines.append(f"{format_bytes(sum(one.bytes for one in rest)):>12} in {len(rest)} more")
        return "\n".join(lines)


_PLANNED: dict[Address, Arena] = {}


def arena(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    gradients: Gradients = "held",
    optimizer: MakeOptimizer | None = None,
    mover: MakeMover | None = None,
    loss: Loss = F.cross_entropy,
    alignment: int = ALIGNMENT,
    of_this_batch: bool = False,
) -> Arena:
    """Return the arena of a training step on one micro-batch; the model is only read.

    model: plain or compressed, in the mode it trains in. x: (b, ...), one micro-batch. y: (b,), its labels. gradients:
    "held" until the update (then they are in the arena), "accumulated" over micro-batches (then they are static memory
    outside it), or "applied" to the weights as soon as each is computed. optimizer: makes the optimizer, such as
    `partial(Sgd, momentum=0.9)`; None: no update. mover: with "applied", makes the object that updates weights layer by
    layer within the backward pass, such as `fed_asi.training.at_once.at_once`. alignment: of every offset, in bytes.
    of_this_batch: accept a step whose operations depend on the data.

    Trained and frozen weights, means, factors, accumulated gradients and momentum are not in the arena; the result
    counts them separately. Plans are cached within the process, by the model's structure and all shapes.
    Raises ConfigError where nothing is trained or the model fails on x, and UnsupportedLayerError for a step that
    depends on the data.
    """
    address = address_of(model, (x, y), gradients, optimizer, mover, loss, alignment)

    def planned() -> Arena:
        trace = record_step(model, x, y, gradients=gradients, optimizer=optimizer, mover=mover, loss=loss)
        return laid_out(trace, alignment)

    return _checked(_remembered(address, planned), model, of_this_batch)


def inference_arena(
    model: nn.Module,
    x: Tensor,
    *,
    storage: Format = "float32",
    alignment: int = ALIGNMENT,
    of_this_batch: bool = False,
) -> Arena:
    """Return the arena of a forward pass without gradients, such as a frozen trunk's on one image, x: (1, C, H, W).

    storage: the format of x and of all transient numbers on the device. The given model is in float32, and the result
    counts its weights in float32, outside the arena. For errors, alignment and of_this_batch see `arena`.
    """
    storage = format_of(storage)
    address = address_of(model, (x,), storage, alignment)
    found = _remembered(address, lambda: laid_out(_in_format(record_inference(model, x), storage), alignment))
    return _checked(found, model, of_this_batch)


def _in_format(trace: Trace, storage: Format) -> Trace:
    """Return the trace with the sizes of its transient float32 tensors changed to those of a format."""
    views = (view for op in trace.ops for view in (*op.read, *op.outputs))
    floats = {view.storage for view in views if view.dtype == torch.float32}
    for number, size in enumerate(trace.sizes):
        if number in floats and trace.comes_and_goes(number):
            trace.sizes[number] = activation_bytes(size, storage)
    return trace


def laid_out(trace: Trace, alignment: int = ALIGNMENT) -> Arena:
    """Return the arena of a traced step."""
    places = lifetimes(trace)
    starts = offsets(places, alignment)
    bound, peak = lower_bound(places, alignment)
    tensors = (
        ArenaTensor(one.name, one.bytes, one.first, one.last, one.storages, start)
        for one, start in zip(places, starts, strict=True)
    )
    return Arena(
        bytes=top(places, starts, alignment),
        lower_bound_bytes=bound,
        saved_bytes=saved_bytes(trace),
        alignment=alignment,
        peak=peak,
        tensors=tuple(tensors),
        operations=tuple(op.name for op in trace.ops),
        trained_bytes=trace.bytes_of("trained"),
        frozen_bytes=trace.bytes_of("frozen"),
        gradient_bytes=trace.bytes_of("gradient"),
        optimizer_bytes=trace.bytes_of("optimizer"),
        mean_bytes=trace.bytes_of("mean"),
        factor_bytes=trace.bytes_of("factors"),
        constant_bytes=trace.bytes_of("constant"),
        data_dependent=tuple(dict.fromkeys(trace.reads)),
    )


def _remembered(address: Address | None, plan: Callable[[], Arena]) -> Arena:
    """Return the arena cached under an address, or plan it."""
    if address is not None and address in _PLANNED:
        return _PLANNED[address]
    found = plan()
    if address is not None and not found.data_dependent:
        if len(_PLANNED) >= REMEMBERED:
            del _PLANNED[next(iter(_PLANNED))]
        _PLANNED[address] = found
    return found


def _checked(found: Arena, model: nn.Module, of_this_batch: bool) -> Arena:
    """Return the arena; raise UnsupportedLayerError if it depends on the data and must hold for every batch."""
    if found.data_dependent and not of_this_batch:
        raise UnsupportedLayerError(
            f"{type(model).__name__}: {found.data_dependent[0]} decides by the data what it computes, so no arena "
            "holds for every batch; use another method or code there, or ask for this batch's (of_this_batch=True)"
        )
    return found
