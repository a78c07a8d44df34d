"""The arena of a step: how many bytes, where every tensor lies in them, and what fills them at the worst moment."""

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

SHOWN = 8  # tensors in a text
REMEMBERED = 256  # arenas of this process


@dataclass(frozen=True, slots=True)
class ArenaTensor(Lifetime):
    """A tensor with a place in the arena, `offset` bytes from its start; see Lifetime for the rest."""

    offset: int


@dataclass(frozen=True, slots=True)
class Arena:
    """The memory of everything that comes and goes in a step, in bytes.

    bytes: of the layout found. lower_bound_bytes: the most needed at one time, which no layout can pass below.
    saved_bytes: alive between forward and backward, factors that layers hold among them; 0 of an inference.
    peak: the operation at which most is needed, the largest of its tensors first in `at_peak`.
    trained_bytes to constant_bytes: what is not in the arena, as the step found it. operations: their names.
    data_dependent: layers whose operations depend on the data, so that the arena is that of this batch alone.
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
        """The tensors alive when most is needed, the largest first."""
        return self.alive(self.peak)

    def alive(self, operation: int) -> tuple[ArenaTensor, ...]:
        """Return the tensors needed at an operation, by its number, the largest first."""
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

    model: plain or compressed, in the mode it trains in. x: (b, ...) one micro-batch. y: (b,) its labels.
    gradients: "held" until the update (they are in the arena), "accumulated" over micro-batches (they are static
    memory, outside of it), or "applied" to the weights as soon as each is computed. optimizer: makes the optimizer,
    such as `partial(Sgd, momentum=0.9)`; None: no update. mover: with "applied", makes what updates
    weights layer by layer within the backward pass, such as `fed_asi.training.at_once.at_once`.
    alignment: of every offset, in bytes. of_this_batch: accept a step whose operations depend on the data.
    Trained and frozen weights, means, factors, accumulated gradients and momentum are not in the arena; the result
    counts them beside it. Plans are remembered within the process, by the model's structure and all shapes.
    Raises ConfigError where nothing is trained or the model fails on x, UnsupportedLayerError for a step that
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

    storage: of x and of every number that comes and goes, as a device holds it; the model given is the float32 one,
    and so are the weights that the result counts beside the arena. Errors, alignment, of_this_batch: as of `arena`.
    """
    storage = format_of(storage)
    address = address_of(model, (x,), storage, alignment)
    found = _remembered(address, lambda: laid_out(_in_format(record_inference(model, x), storage), alignment))
    return _checked(found, model, of_this_batch)


def _in_format(trace: Trace, storage: Format) -> Trace:
    """Return the trace with the sizes that its float32 tensors have in a format, those that come and go."""
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
    """Return the arena known under an address, or plan it."""
    if address is not None and address in _PLANNED:
        return _PLANNED[address]
    found = plan()
    if address is not None and not found.data_dependent:
        if len(_PLANNED) >= REMEMBERED:
            del _PLANNED[next(iter(_PLANNED))]
        _PLANNED[address] = found
    return found


def _checked(found: Arena, model: nn.Module, of_this_batch: bool) -> Arena:
    """Return the arena if it holds for other data too, or need not."""
    if found.data_dependent and not of_this_batch:
        raise UnsupportedLayerError(
            f"{type(model).__name__}: {found.data_dependent[0]} decides by the data what it computes, so no arena "
            "holds for every batch; use another method or code there, or ask for this batch's (of_this_batch=True)"
        )
    return found
