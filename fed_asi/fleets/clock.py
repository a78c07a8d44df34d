"""The clock: seconds and joules of a device's part of a round. It is pure arithmetic, without any host time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from fed_asi.errors import ConfigError
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Work

BITS = 8  # in a byte
PARTS = ("download", "trunk", "step", "judging", "upload")


@dataclass(frozen=True, slots=True)
class Task:
    """What a device does in a round: bytes received, images through the trunk, steps, judging, bytes sent."""

    down_bytes: int
    trunk: Work
    step: Work
    judging: Work
    up_bytes: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What a task takes, part by part. joules: None where the device's power is unknown."""

    download_seconds: float
    trunk_seconds: float
    step_seconds: float
    judging_seconds: float
    upload_seconds: float
    download_joules: float | None = None
    trunk_joules: float | None = None
    step_joules: float | None = None
    judging_joules: float | None = None
    upload_joules: float | None = None

    @property
    def sim_seconds(self) -> float:
        """Seconds from the server's message to the arrival of the reply."""
        total = 0.0  # summed in a fixed order, as the last bits are part of the records
        for part in PARTS:
            total += getattr(self, f"{part}_seconds")
        return total

    @property
    def energy_joules(self) -> float | None:
        """The energy it takes from the battery, in joules."""
        found = [getattr(self, f"{part}_joules") for part in PARTS]
        if any(one is None for one in found):
            return None
        total = 0.0
        for one in found:
            total += one
        return total

    def columns(self) -> dict[str, Any]:
        """Return the columns of a device's round."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**parts, "sim_seconds": self.sim_seconds, "energy_joules": self.energy_joules}

    def lasts(self, joules: float) -> float:
        """Return after how many seconds this energy is spent; infinity if the whole task takes no more."""
        total, seconds = 0.0, 0.0
        for part in PARTS:
            taken, needs = getattr(self, f"{part}_seconds"), getattr(self, f"{part}_joules") or 0.0
            if needs > 0.0 and total + needs > joules:
                return seconds + float(taken) * max(0.0, joules - total) / float(needs)
            total, seconds = total + needs, seconds + taken
        return math.inf

    def until(self, seconds: float) -> Spent:
        """Return what is spent if the device stops after so many seconds, possibly in the middle of a part."""
        left, kept = max(0.0, seconds), dict[str, float | None]()
        for part in PARTS:
            whole, joules = getattr(self, f"{part}_seconds"), getattr(self, f"{part}_joules")
            share = 1.0 if whole <= left else left / whole
            kept[f"{part}_seconds"] = whole if share == 1.0 else left
            kept[f"{part}_joules"] = None if joules is None else joules * share
            left -= min(whole, left)
        return Spent(**kept)  # type: ignore[arg-type]


def spent(task: Task, hardware: Hardware) -> Spent:
    """Return what a task takes on a device. Raises ConfigError where its rates are unknown."""
    if not hardware.has_clock:
        raise ConfigError(f"{hardware.name or 'a device'} does not say {', '.join(hardware.missing)}")
    latency = hardware.latency_seconds or 0.0
    down = latency + BITS * task.down_bytes / (hardware.down_bits_per_second or 1.0)
    up = latency + BITS * task.up_bytes / (hardware.up_bits_per_second or 1.0)
    works = (task.trunk, task.step, task.judging)
    seconds = [seconds_of(work, hardware) for work in works]
    radio = [_times(hardware.radio_watts, one) for one in (down, up)]
    joules = [joules_of(work, one, hardware) for work, one in zip(works, seconds, strict=True)]
    return Spent(
        down, seconds[0], seconds[1], seconds[2], up, radio[0], joules[0], joules[1], joules[2], radio[1]
    )


def seconds_of(work: Work, hardware: Hardware) -> float:
    """Return how long work takes, in seconds: products, elements, bytes and calls, one after another."""
    total = 0.0
    for done, rate in zip(work[:-1], _rates(hardware), strict=True):
        total += done / rate
    return total + work.calls * (hardware.call_seconds or 0.0)


def joules_of(work: Work, seconds: float, hardware: Hardware) -> float | None:
    """Return the energy that work takes, in joules: by operation where that is known, otherwise by time."""
    if hardware.mac_joules is not None:
        return work.macs * hardware.mac_joules + work.moved_bytes * (hardware.byte_joules or 0.0)
    return _times(hardware.compute_watts, seconds)


def _times(watts: float | None, seconds: float) -> float | None:
    return None if watts is None else watts * seconds


def _rates(hardware: Hardware) -> Iterator[float]:
    for key in ("dense_per_second", "depthwise_per_second", "elements_per_second", "bytes_per_second"):
        yield getattr(hardware, key)
