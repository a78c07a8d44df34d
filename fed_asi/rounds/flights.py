"""Devices at work, and which of them ends next: the event queue of buffered updates."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fed_asi.rounds.fates import Fate


@dataclass(frozen=True, slots=True)
class Flight:
    """A device at work. began: on the run's clock. fate: how it ends; predicted from its plan until it is known."""

    began: float
    fate: Fate

    @property
    def partition_id(self) -> int:
        """The partition id of the device."""
        return self.fate.job.partition_id

    @property
    def order(self) -> tuple[float, int]:
        """The sort key of flights: when they end, then the partition id."""
        return self.fate.ends, self.partition_id


class Flights:
    """All devices at work. devices: number of devices in the fleet.

    busy: by partition id, devices that are at work or have landed in the current update, and so are not asked.
    Each operation takes time in the logarithm of the number of devices at work.
    """

    def __init__(self, devices: int) -> None:
        self.busy = np.zeros(devices, dtype=bool)
        self._of: dict[int, Flight] = {}
        self._queue: list[tuple[float, int]] = []  # a heap: the order of each flight, once
        self._landed: list[int] = []

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[Flight]:
        """Yield the flights by partition id."""
        return (self._of[one] for one in sorted(self._of))

    @property
    def first(self) -> Flight | None:
        """The flight that ends first; None: nobody is at work."""
        return self._of[self._queue[0][1]] if self._queue else None

    def begin(self, flight: Flight) -> None:
        """Begin the flight of a device that is not at work."""
        self._of[flight.partition_id] = flight
        self.busy[flight.partition_id] = True
        heapq.heappush(self._queue, flight.order)

    def delay(self, fate: Fate) -> None:
        """Delay the end of the first flight, as its fate says: it takes longer than predicted."""
        one = fate.job.partition_id
        self._of[one] = Flight(self._of[one].began, fate)
        heapq.heapreplace(self._queue, self._of[one].order)

    def land(self) -> Flight:
        """Remove and return the first flight; its device is busy until the next update."""
        _, one = heapq.heappop(self._queue)
        self._landed.append(one)
        return self._of.pop(one)

    def next_update(self) -> None:
        """Allow the devices that have landed to be asked again."""
        self.busy[self._landed] = False
        self._landed.clear()
