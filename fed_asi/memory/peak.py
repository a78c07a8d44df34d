"""The peak of the bytes that a block allocates."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Self

import torch

from fed_asi.torch_private import Allocation, allocations, moved


class StepMeter:
    """Measure the peak of the bytes held by tensors that were made inside the block: `peak_bytes`.

    On CPU it uses torch's profiler, which sees temporaries inside operations too but is far too slow to stay on; on
    CUDA it uses the allocator's own statistics. oneDNN's private scratch memory on CPU is not measured.
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
            self._marker = _mark()
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
        self.peak_bytes = peak_of(without(self._marker, sorted(allocations(self._profiler))))


def _mark() -> tuple[int, int]:
    """Allocate and release a few bytes; return (address, bytes)."""
    marker = torch.empty(1)
    return marker.data_ptr(), marker.nbytes


def without(marker: tuple[int, int], found: list[Allocation]) -> list[Allocation]:
    """Return the allocations without those of the marker.

    Raises TorchMovedError if they do not include the marker: the profiler then sees nothing, and a result of 0 bytes
    would not be a measurement.
    """
    address, size = marker
    for wanted in ((address, size), (address, -size)):
        place = next((i for i, (_, *one) in enumerate(found) if tuple(one) == wanted), None)
        if place is None:
            raise moved("the profiler's memory events", f"none of an allocation of {size} bytes")
        found = found[:place] + found[place + 1 :]
    return found


def peak_of(allocations: Iterable[Allocation]) -> int:
    """Return the peak of the bytes alive at one time, over these allocations.

    The release of a block that was not allocated among them is ignored: the measured block never had that memory.
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
