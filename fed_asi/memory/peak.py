"""The most bytes that a block allocates at one time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self

import torch


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
        self.peak_bytes = peak_of(sorted(allocations(results.experimental_event_tree())))


Allocation = tuple[int, int, int]  # nanoseconds, address, bytes: negative where they are given back


def allocations(events: Any) -> Iterator[Allocation]:
    """Yield every allocation and release among the profiler's events."""
    for event in events:
        found = event.extra_fields
        if hasattr(found, "alloc_size"):
            yield event.start_time_ns, found.ptr, found.alloc_size
        yield from allocations(event.children)


def peak_of(allocations: Iterable[Allocation]) -> int:
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
