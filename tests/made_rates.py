"""Made-up steps for tests of fitted rates: the times of a machine with known rates."""

from __future__ import annotations

from collections.abc import Iterator

from fed_asi.fleets.clock import seconds_of
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Work
from fed_asi.training.measuring import Measured

TRUE = Hardware(
    dense_per_second=4e10,
    depthwise_per_second=3e9,
    elements_per_second=7e8,
    bytes_per_second=8e9,
    call_seconds=2e-5,
)


def steps(*_arguments: object) -> Iterator[Measured]:
    for scale in (1, 3, 10, 40):
        for work in (Work(scale * 10**8, 0, 10**5, 10**6, 90), Work(10**6, scale * 10**6, 10**6, 10**7, 200),
                     Work(10**7, 0, scale * 10**5, scale * 10**6, 100)):  # fmt: skip
            yield Measured("made", "vanilla", 1, work, seconds_of(work, TRUE))
