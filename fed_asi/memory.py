"""What training needs beside the saved activations, each under its own name: nothing is left out.

On a microcontroller all of these share one memory. A budget is held against saved bytes unless a fleet says
otherwise, so whoever says "fits in 256 KiB" should print this table too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import layers
from fed_asi.meter import ActivationMeter, static_tensors
from fed_asi.units import format_bytes

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes of one device's training, by what they are for.

    weight_bytes: parameters and buffers of the trained part. trunk_weight_bytes: those of the frozen trunk.
    constant_bytes: means of centred layers. accumulator_bytes: gradients held from one micro-batch to the
    next. optimizer_bytes: momentum. saved_bytes: of one micro-batch, by ActivationMeter.
    step_transient_bytes: the most that forward and backward of the trained part hold beyond all of that,
    their input included unless it is saved.
    trunk_transient_bytes: the most that the trunk's forward allocates, while nothing is saved yet.
    """

    weight_bytes: int
    trunk_weight_bytes: int
    constant_bytes: int
    accumulator_bytes: int
    optimizer_bytes: int
    saved_bytes: int
    step_transient_bytes: int
    trunk_transient_bytes: int

    @property
    def static_bytes(self) -> int:
        """Bytes that stay from step to step."""
        weights = self.weight_bytes + self.trunk_weight_bytes + self.constant_bytes
        return weights + self.accumulator_bytes + self.optimizer_bytes

    @property
    def total_bytes(self) -> int:
        """The most that is alive at one time: the static part, and the larger of trunk and step."""
        step = self.saved_bytes + self.step_transient_bytes
        return self.static_bytes + max(step, self.trunk_transient_bytes)

    def __str__(self) -> str:
        names = [field.name for field in fields(self)] + ["static_bytes", "total_bytes"]
        return "\n".join(f"{name:<24} {format_bytes(getattr(self, name)):>12}" for name in names)


def training_memory(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    trunk: nn.Module | None = None,
    momentum: bool = False,
    accumulate: bool = True,
    loss: Loss = F.cross_entropy,
) -> TrainingMemory:
    """Return what one micro-batch of training needs; `model` and `trunk` are only read.

    model: compressed or plain, its trained part at least, in the mode it trains in. x: (b, ...) what goes
    into the trunk, or into the model where there is none. y: (b,). momentum: of SGD. accumulate: False where the
    weights move after every micro-batch, so that gradients need not be held; they are transient then.
    """
    model = copy.deepcopy(model)
    trunk_transient, features = 0, x
    if trunk is not None:
        with torch.no_grad(), StepMeter(x.device) as meter:
            features = trunk(x)
        trunk_transient = meter.peak_bytes
    trained = [p for p in model.parameters() if p.requires_grad]
    _step(model, features, y, loss)  # warm factors are there from the second step on
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter) if accumulate else None
    with StepMeter(x.device) as meter:
        activations = _step(model, features, y, loss)
    # Warm factors of the step before were there already when the peak began.
    fresh = activations.saved_bytes - activations.state_bytes
    gradients = sum(p.nbytes for p in trained)
    return TrainingMemory(
        weight_bytes=_weights(model),
        trunk_weight_bytes=0 if trunk is None else _weights(trunk),
        constant_bytes=sum(t.nbytes for module in model.modules() for t in static_tensors(module)),
        accumulator_bytes=gradients if accumulate else 0,
        optimizer_bytes=gradients if momentum else 0,
        saved_bytes=activations.saved_bytes,
        step_transient_bytes=max(0, meter.peak_bytes - fresh),
        trunk_transient_bytes=trunk_transient,
    )


def _step(model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> ActivationMeter:
    x, y = x.clone(), y.clone()  # so that they are among what the step allocates
    with ActivationMeter(model) as meter:
        value = loss(model(x), y)
    torch.autograd.backward(value)
    layers.commit_factors_(model)
    return meter


def _weights(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


class StepMeter:
    """Measure the most bytes that tensors made inside the block hold at one time: `peak_bytes`.

    On CPU by torch's profiler, which sees the temporaries inside operations too, and is far too slow to stay
    on; on CUDA by the allocator's own statistics. oneDNN's private scratch memory is out of sight on CPU.
    """

    def __init__(self, device: torch.device) -> None:
        self.peak_bytes = 0
        self._device = device
        self._start = 0

    def __enter__(self) -> Self:
        """Start counting from zero."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
            self._start = torch.cuda.memory_allocated(self._device)
        else:
            from torch.profiler import ProfilerActivity, profile

            self._profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True)
            self._profiler.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            self.peak_bytes = torch.cuda.max_memory_allocated(self._device) - self._start
            return
        self._profiler.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        results: Any = getattr(self._profiler.profiler, "kineto_results", None)
        self.peak_bytes = _peak_bytes(sorted(_allocations(results.experimental_event_tree())))


Allocation = tuple[int, int, int]  # nanoseconds, address, bytes: negative where they are given back


def _allocations(events: Any) -> Iterator[Allocation]:
    """Yield every allocation and release among the profiler's events."""
    for event in events:
        found = event.extra_fields
        if hasattr(found, "alloc_size"):
            yield event.start_time_ns, found.ptr, found.alloc_size
        yield from _allocations(event.children)


def _peak_bytes(allocations: Iterable[Allocation]) -> int:
    """Return the most bytes alive at one time of what was allocated here.

    A release of what was not is left out: it would make room that the block measured never had.
    """
    alive: dict[int, int] = {}
    held = peak = 0
    for _, address, size in allocations:
        if size > 0:
            alive[address] = size
            held += size
        else:
            held -= alive.pop(address, 0)
        peak = max(peak, held)
    return peak
