"""The run's clock: what time it is, who is there, whom a round asks, and when it ends. In simulated seconds alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from fed_asi.errors import RunError
from fed_asi.fleets.fleet import Fleet
from fed_asi.fleets.presence import Attendance
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.rounds.cohort import sample_cohort
from fed_asi.rounds.timing import Timing
from fed_asi.workplace.place import Workplace


class RoundClock:
    """The clock of a run, from 0; it stands still where no device has one. now: of the round that is to begin."""

    def __init__(self, place: Workplace, fleet: Fleet) -> None:
        self.timing = Timing.of(place, fleet)
        self.now = 0.0
        self._config, self._fleet = place.config, fleet
        self._attendance = Attendance((device.presence for device in fleet), place.config.seed)

    def set(self, rounds: Sequence[RoundRecord]) -> None:
        """Go on from the rounds that are recorded."""
        self.now = max((record.sim_end_seconds or 0.0 for record in rounds), default=0.0)

    def cohort(self, round: int) -> list[int]:
        """Return the partition ids a round asks, drawn among those who are there; it waits until anybody is.

        Raises RunError where nobody comes any more.
        """
        first = self._attendance.first(self.now)
        if first == math.inf:
            raise RunError(
                f"nobody is there after {self.now:.0f} simulated seconds, and nobody comes any more"
            )
        self.now = first
        there = self._attendance.present(self.now).nonzero()[0].tolist()
        return sample_cohort(self._config.seed, round, there, self._config.cohort)

    def closed(self, summary: RoundRecord, records: Sequence[DeviceRoundRecord]) -> RoundRecord:
        """Return a round's record with its place on the clock, which moves on to the last reply."""
        if self.timing is None:
            return summary
        start, joules = self.now, [r.energy_joules for r in records if r.energy_joules is not None]
        self.now = max((start + (record.sim_seconds or 0.0) for record in records), default=start)
        energy = sum(joules) if joules else None
        return replace(summary, sim_start_seconds=start, sim_end_seconds=self.now, energy_joules=energy)
