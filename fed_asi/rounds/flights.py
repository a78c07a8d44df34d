"""Who is at work, and who of them is done next: the queue of events of updates that are made of so many replies."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fed_asi.rounds.fates import Fate


@dataclass(frozen=True, slots=True)
class Flight:
    """A device at work. began: on the run's clock. fate: what becomes of it, by its own plan until it is known."""

    began: float
    fate: Fate

    @property
    def partition_id(self) -> int:
        """Whose it is."""
        return self.fate.job.partition_id

    @property
    def order(self) -> tuple[float, int]:
        """By which flights end first: when, then whose they are."""
        return self.fate.ends, self.partition_id


class Flights:
    """All devices at work. devices: of the fleet, at work or not.

    busy: by partition id, who is at work or has landed in the update that is made, so is not asked.
    What is done for a device takes as long as the logarithm of how many are at work.
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
        """Let a device begin that is not at work."""
        self._of[flight.partition_id] = flight
        self.busy[flight.partition_id] = True
        heapq.heappush(self._queue, flight.order)

    def delay(self, fate: Fate) -> None:
        """Let the first flight end as its fate says, which is later than it was foretold."""
        one = fate.job.partition_id
        self._of[one] = Flight(self._of[one].began, fate)
        heapq.heapreplace(self._queue, self._of[one].order)

    def land(self) -> Flight:
        """Return the first flight, which is over; its device is busy until the next update."""
        _, one = heapq.heappop(self._queue)
        self._landed.append(one)
        return self._of.pop(one)

    def next_update(self) -> None:
        """Let those who have landed be asked again."""
        self.busy[self._landed] = False
        self._landed.clear()
