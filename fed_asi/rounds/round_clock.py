"""The run's clock, in simulated seconds only: the time, who is present, which devices a round asks, when it ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.errors import ConfigError, RunError
from fed_asi.fleets.attendance import Attendance
from fed_asi.fleets.clock import Spent
from fed_asi.fleets.cohort import sample_cohort
from fed_asi.fleets.fleet import Fleet
from fed_asi.fleets.presence import Ids, There
from fed_asi.fleets.resources import of_one_round
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.rounds.answers import Answer, counted, cut_at
from fed_asi.rounds.batteries import LEAST, Batteries
from fed_asi.rounds.fates import Fate, Limits, cut_off, fate
from fed_asi.rounds.timing import AT_ONCE, Timing
from fed_asi.workplace.place import Workplace

_TOUCH = 1e-3  # seconds; the time when a device comes may be rounded to just before it


def nobody_comes(at: float) -> RunError:
    """Return the error for a fleet of which no device will ever come again. at: since when, on the run's clock."""
    why = f"no device is present after {at:.0f} simulated seconds, and none will come"
    return RunError(f"{why}: give batteries charge_watts, or devices another presence")


def _began(record: DeviceRoundRecord, start: float) -> float:
    """Return when a device began, on the run's clock. start: of the round in whose records it is."""
    return start if record.began_seconds is None else record.began_seconds


class RoundClock:
    """The clock of a run, from 0; it stands still if no device has a clock. now: the start of the next round."""

    def __init__(self, place: Workplace, fleet: Fleet) -> None:
        self.timing = Timing.of(place, fleet)
        self.now = 0.0
        self._config, self._fleet, self._keys = place.config, fleet, place.config.clock
        self._attendance = Attendance((device.presence for device in fleet), place.config.seed)
        self._batteries = Batteries(fleet)

    def set(self, rounds: Sequence[RoundRecord], devices: Iterable[DeviceRoundRecord]) -> None:
        """Go on from what is recorded. devices: by round and partition id."""
        starts = {record.round: record.sim_start_seconds or 0.0 for record in rounds}
        self.now = max((record.sim_end_seconds or 0.0 for record in rounds), default=0.0)
        if self._batteries.any:
            for record in devices:
                self._batteries.take_(_began(record, starts[record.round]), [record])

    def cohort(self, round: int) -> list[int]:
        """Return the partition ids that a round asks, drawn among devices that are present; it waits until one is.

        Raises RunError where no device will come.
        """
        size = self._keys.ask or self._config.cohort
        if self._keys.among == "all":
            return sample_cohort(self._config.seed, round, self._fleet.partition_ids, size)
        self._wait()
        return sample_cohort(self._config.seed, round, self.free(self.now), size)

    def _wait(self) -> None:
        """Move on to when a device is present."""
        first = self.from_when(self.now)
        if first == math.inf:
            raise nobody_comes(self.now)
        self.now = first

    def free(self, at: float, busy: There | None = None) -> Ids:
        """Return the devices that can be asked at a time, ascending. busy: by partition id, those that cannot."""
        there = self._attendance.present(at) & self._batteries.enough(at)
        return np.flatnonzero(there if busy is None else there & ~busy)

    def from_when(self, at: float, busy: There | None = None) -> float:
        """Return when any device can be asked, at `at` or later; infinity: never. busy: those that cannot."""
        first, touch = at, 0.0
        while first < math.inf and not len(self.free(first, busy)):
            ready = self._batteries.ready(first)
            if busy is not None:
                ready[busy] = math.inf
            first, touch = max(first + touch, self._attendance.first(ready)), _TOUCH
        return first

    def notes(self) -> list[str]:
        """Return notes on the times of the run for its readers."""
        return [] if self.timing is None else self.timing.notes()

    def sends(self, sent: Mapping[str, Tensor]) -> None:
        """Count the transfer of these tensors to every device from now on."""
        if self.timing is not None:
            self.timing.sends(sent)

    def fates(self, jobs: Sequence[Job], sent: Mapping[str, Tensor], began: float) -> list[Fate]:
        """Return the fate of each job by its device's own plan; if work is cut to fit, that of the cut job.

        sent: the tensors sent to every one of these devices. began: when, on the run's clock.
        """
        self.sends(sent)
        return [self._ahead(job, began) for job in jobs]

    def fate(self, job: Job, spent: Spent | None, began: float) -> Fate:
        """Return what becomes of a job that takes `spent`. began: when, on the run's clock."""
        one = job.partition_id
        if self._keys.among == "present" and self._attendance.always and not self._batteries.any:
            return fate(job, spent, Limits(began, self._deadline))
        absent = None if self._keys.among == "present" else self._absent(one, began)
        leaves = self._attendance.leaves(one, began) if absent is None else began
        held = self._batteries.held(one, began)
        return fate(job, spent, Limits(began, self._deadline, leaves, held, absent))

    def _absent(self, partition_id: int, at: float) -> str | None:
        """Return why a device cannot be reached at a time; None: it can."""
        if not self._attendance.is_there(partition_id, at):
            return "it was absent when the round began"
        if not self._batteries.enough(at)[partition_id]:
            return f"its battery held less than {LEAST:.0%} when the round began"
        return None

    @property
    def _deadline(self) -> float:
        return math.inf if self._keys.deadline_seconds is None else self._keys.deadline_seconds

    def _ahead(self, job: Job, began: float) -> Fate:
        if self.timing is None:
            return Fate(job, None, began)
        spent = self.timing.ahead(job)
        if self._keys.fit and spent is not None and spent.sim_seconds > self._deadline:
            job = replace(job, steps=self._fitting(job))
            spent = self.timing.ahead(job)
        return self.fate(job, spent, began)

    def _fitting(self, job: Job) -> int:
        """Return how many steps fit into the deadline, at least one."""
        timing = self.timing
        if timing is None:
            return 1
        low, high = 1, timing.tasks.steps(job.resources, timing.images(job.partition_id))
        while low < high:
            middle = (low + high + 1) // 2
            spent = timing.ahead(replace(job, steps=middle))
            fits = spent is not None and spent.sim_seconds <= self._deadline
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def check(self, jobs: Iterable[Job]) -> None:
        """Raise ConfigError where no device could ever meet the deadline. jobs: one of each device."""
        if self._keys.deadline_seconds is None or self.timing is None:
            return
        quickest, who = math.inf, -1
        for job in jobs:
            spent = self.timing.ahead(replace(job, steps=1) if self._keys.fit else job)
            if spent is None or spent == AT_ONCE:
                continue
            if spent.sim_seconds <= self._deadline:
                return
            if spent.sim_seconds < quickest:
                quickest, who = spent.sim_seconds, job.partition_id
        if who >= 0:
            what = "one step" if self._keys.fit else "its round"
            raise ConfigError(
                f"clock.deadline_seconds: no device can meet {self._deadline:g} s; the fastest, device {who} of "
                f"{self._fleet[who].group!r}, needs {quickest:.3g} s for {what}; use a longer one"
            )

    @property
    def wanted(self) -> int | None:
        """How many devices that train end a round; None: it waits for all that were asked."""
        return None if self._keys.ask is None else self._config.cohort

    def end(self, answers: Sequence[Answer], others: Sequence[Fate]) -> float:
        """Return when a round ends. others: fates of devices that did not reply."""
        counts = counted(answers, self.wanted)
        if self.wanted is not None and len(counts) >= self.wanted:
            return max(one.fate.ends for one in counts)
        return max([one.fate.ends for one in answers] + [other.ends for other in others], default=self.now)

    def recorded(
        self, answers: Sequence[Answer], counts: Sequence[Answer], end: float
    ) -> list[DeviceRoundRecord]:
        """Return the records of devices that replied, with their times, once the round has ended.

        counts: the answers whose updates are averaged.
        """
        chosen = {one.record.partition_id for one in counts}
        return [
            cut_at(one, self.now, end, len(counts), counts=one.record.partition_id in chosen)
            for one in answers
        ]

    def left_out(self, found: Fate, end: float, replies: int) -> DeviceRoundRecord:
        """Return the record of a device that did not reply, with its times."""
        found = cut_off(found, self.now, end, replies)
        return DeviceRoundRecord(
            round=found.job.round,
            partition_id=found.job.partition_id,
            outcome=found.outcome or "late",
            cause=found.cause,
            **of_one_round(found.job.resources),
            **({} if found.spent is None else found.spent.columns()),
        )

    def closed(self, summary: RoundRecord, records: Sequence[DeviceRoundRecord], end: float) -> RoundRecord:
        """Return a round's record with its place on the clock, which moves on to its end."""
        if self.timing is None:
            return summary
        start, joules = self.now, [r.energy_joules for r in records if r.energy_joules is not None]
        for record in records:
            self._batteries.take_(_began(record, start), [record])
        self.now = end
        energy = sum(joules) if joules else None
        return replace(summary, sim_start_seconds=start, sim_end_seconds=end, energy_joules=energy)
