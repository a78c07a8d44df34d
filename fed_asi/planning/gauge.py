"""The cost of a plan's round in seconds, joules or multiply-accumulates, as a price for each kind of work.

The prices are what the clock charges for one unit of each kind of work. So a sum over layers at these prices equals
the clock's result for all of them together, except for rounding in the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from fed_asi.errors import ConfigError
from fed_asi.fleets.clock import Task, joules_of, seconds_of, spent
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Work

_UNITS = tuple(Work(*(int(i == kind) for i in range(len(Work())))) for kind in range(len(Work())))


@dataclass(frozen=True, slots=True)
class Gauge:
    """The prices of one device. unit: of all prices. work: for one of each kind of work, in the order of `Work`.

    up_byte: for a byte sent back. rest: what a round costs under any plan: latencies and the download.
    """

    unit: str
    work: Sequence[float]
    up_byte: float = 0.0
    rest: float = 0.0

    def of(self, work: Work, up_bytes: int = 0) -> float:
        """Return the cost of some work and of the bytes of a reply, in the gauge's unit."""
        found = up_bytes * self.up_byte
        for price, count in zip(self.work, work, strict=True):
            found += price * count
        return found

    @classmethod
    def seconds(cls, hardware: Hardware, down_bytes: int = 0) -> Self:
        """Return prices in seconds on a device. Raises ConfigError if its rates are not known."""
        around = spent(_sent(down_bytes, 0), hardware)
        reply = spent(_sent(0, 1), replace(hardware, latency_seconds=0.0))
        work = tuple(seconds_of(one, hardware) for one in _UNITS)
        return cls("seconds", work, reply.upload_seconds, around.sim_seconds)

    @classmethod
    def joules(cls, hardware: Hardware, down_bytes: int = 0) -> Self:
        """Return prices in joules on a device. Raises ConfigError if its power or its rates are not known."""
        around = spent(_sent(down_bytes, 0), hardware).energy_joules
        reply = spent(_sent(0, 1), replace(hardware, latency_seconds=0.0)).energy_joules
        work = [joules_of(one, seconds_of(one, hardware), hardware) for one in _UNITS]
        if around is None or reply is None:
            raise ConfigError(
                f"{hardware.name or 'a device'} does not say {', '.join(hardware.lacking_power)}"
            )
        return cls("joules", tuple(one or 0.0 for one in work), reply, around)

    @classmethod
    def macs(cls) -> Self:
        """Return prices in multiply-accumulates, for a device without rates."""
        return cls("multiply-accumulates", tuple(float(one.macs) for one in _UNITS))


def _sent(down_bytes: int, up_bytes: int) -> Task:
    return Task(down_bytes, Work(), Work(), Work(), up_bytes)
