"""The charge of the devices' batteries, on the run's clock: spent in rounds, and charged in between."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fed_asi.fleets.fleet import Fleet
from fed_asi.results.schema import DeviceRoundRecord

LEAST = 0.2  # of a full battery; a device with less is not asked


class Batteries:
    """Joules by partition id; infinity for devices on mains. They begin full."""

    def __init__(self, fleet: Fleet) -> None:
        found = [device.hardware for device in fleet]
        joules = [one.battery_joules if one is not None else None for one in found]
        self._whole = np.array([math.inf if one is None else one for one in joules])
        self._charge = np.array([(one.charge_watts or 0.0) if one is not None else 0.0 for one in found])
        self._least = np.where(np.isfinite(self._whole), LEAST * self._whole, 0.0)
        self._held = self._whole.copy()
        self._since = np.zeros(len(found))
        self._any = bool(np.isfinite(self._whole).any())

    @property
    def any(self) -> bool:
        """Whether any device has one."""
        return self._any

    def held(self, partition_id: int, at: float) -> float:
        """Return the charge of a device's battery at a time, in joules."""
        gained = float(self._charge[partition_id]) * (at - float(self._since[partition_id]))
        return min(float(self._whole[partition_id]), float(self._held[partition_id]) + gained)

    def enough(self, at: float) -> NDArray[np.bool_]:
        """Return which devices have enough charge to be asked."""
        if not self.any:
            return np.ones(len(self._whole), dtype=bool)
        enough: NDArray[np.bool_] = self._at(at) >= self._least
        return enough

    def ready(self, at: float) -> NDArray[np.float64]:
        """Return when each device has enough charge, at `at` or later; infinity: never."""
        if not self.any:
            return np.full(len(self._whole), at)
        lacks = self._least - self._at(at)
        wait = np.divide(lacks, self._charge, out=np.full(len(lacks), math.inf), where=self._charge > 0.0)
        ready: NDArray[np.float64] = np.where(lacks <= 0.0, at, at + wait)
        return ready

    def _at(self, at: float) -> NDArray[np.float64]:
        """Return what every battery holds."""
        held: NDArray[np.float64] = at - self._since
        held *= self._charge  # in place: in a large fleet new arrays take longer than sums
        held += self._held
        np.minimum(self._whole, held, out=held)
        return held

    def take_(self, start: float, records: Iterable[DeviceRoundRecord]) -> None:
        """Take what the devices of a round have spent. start: of the round."""
        for record in records:
            one = record.partition_id
            if record.energy_joules is None or not math.isfinite(self._whole[one]):
                continue
            self._held[one] = max(0.0, self.held(one, start) - record.energy_joules)
            self._since[one] = start + (record.sim_seconds or 0.0)
