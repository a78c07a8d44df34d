"""Synchronous rounds: a cohort is asked at once, and the round ends with its replies or by the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fed_asi.devices.job import Job
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.rounds.answers import Answer, by_reply, counted, still_to_ask
from fed_asi.rounds.asking import Asking, Parcel
from fed_asi.rounds.fates import Fate
from fed_asi.rounds.round_clock import RoundClock
from fed_asi.rounds.round_end import RoundEnd
from fed_asi.rounds.state import State


@dataclass(frozen=True, slots=True)
class Synchronous:
    """Rounds whose devices all begin with the same weights at the same time."""

    asking: Asking
    clock: RoundClock
    end: RoundEnd

    def next(self, state: State) -> State:
        """Return the state after the next round, which is recorded."""
        started, round = time.perf_counter(), state.round + 1
        jobs, parcel = self.jobs(round, state), self.asking.parcel(state)
        self.end.watcher.round_started(round, self.asking.place.config.rounds, len(jobs))
        answers, left_out = self._answers(jobs, parcel)
        counts = counted(answers, self.clock.wanted)
        end = self.clock.end(answers, left_out)
        records = self.clock.recorded(answers, counts, end)
        records += self._left_out(left_out, end, len(counts), parcel)
        records.sort(key=lambda record: record.partition_id)
        self.end.note_all(answers)
        after = self.end.after(state, [one.update for one in counts if one.update is not None], records)
        summary = RoundRecord(round, len(jobs), len(counts), None, None, lr=jobs[0].lr)
        self.end.finish(self.clock.closed(summary, records, end), records, after, started)
        return after

    def jobs(self, round: int, state: State) -> list[Job]:
        """Return what each device of a round's cohort is asked, by partition id."""
        return [self.asking.job(round, one, state) for one in self.clock.cohort(round)]

    def _answers(self, jobs: Sequence[Job], parcel: Parcel) -> tuple[list[Answer], list[Fate]]:
        """Return the replies to a round, and the fates of devices that did not reply."""
        to_check = self.asking.checks(jobs[0].round)
        waiting, gone = by_reply(self.clock.fates(jobs, parcel.whole, self.clock.now))
        answers: list[Answer] = []
        while wave := still_to_ask(waiting, answers, self.clock.wanted):  # once, unless more are asked
            waiting = waiting[len(wave) :]
            asked = [found.job for found in wave]
            able = next((i for i, job in enumerate(asked) if self.asking.fault(job) is None), None)
            if to_check and able is not None:
                asked[able], to_check = replace(asked[able], check=True), False
            began = self.clock.now
            for one in self.asking.answers({job.partition_id: (job, began) for job in asked}, parcel):
                self.end.watcher.device_done(one.record)
                answers.append(one)
        return answers, [*gone, *waiting]

    def _left_out(
        self, fates: Sequence[Fate], end: float, replies: int, parcel: Parcel
    ) -> Iterator[DeviceRoundRecord]:
        for found in fates:
            record = self.asking.unanswered(self.clock.left_out(found, end, replies), found, parcel)
            self.end.watcher.device_done(record)
            yield record
