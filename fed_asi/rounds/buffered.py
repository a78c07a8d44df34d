"""Buffered asynchrony: devices begin and end by the clock, and every so many replies make an update of the weights.

A free device is asked as soon as there is a place at work, and begins with the current weights; replies are handled in
the order in which they arrive. A reply depends only on its job and weights, so it may be computed late, together with
others that began with the same weights, without changing when anything happens.
Source: FedBuff, Nguyen et al. 2022 (arXiv 2106.06639); strategies/stale.py lists the differences.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from fed_asi.fleets.cohort import sample_cohort
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.rounds.answers import Answer
from fed_asi.rounds.asking import Asking, Parcel
from fed_asi.rounds.fates import Fate
from fed_asi.rounds.flights import Flight, Flights
from fed_asi.rounds.round_clock import RoundClock, nobody_comes
from fed_asi.rounds.round_end import RoundEnd
from fed_asi.rounds.state import Begun, State
from fed_asi.strategies.stale import brought_up, damping


@dataclass(slots=True)
class Buffered:
    """Rounds that are updates: each is made of the next replies that trained, as many as the cohort."""

    asking: Asking
    clock: RoundClock
    end: RoundEnd
    _flights: Flights = field(init=False)
    _answers: dict[int, Answer] = field(default_factory=dict)  # computed but not due yet
    _checked: bool = False

    def __post_init__(self) -> None:
        """Begin with nobody at work."""
        self._flights = Flights(len(self.asking.fleet))

    def next(self, state: State) -> State:
        """Return the state after the next update, which is recorded. Raises RunError if no device will come again."""
        started, config = time.perf_counter(), self.asking.place.config
        self.end.watcher.round_started(state.round + 1, config.rounds, config.cohort)
        self._go_on(state)
        landed, at, draws = self._landed(state)
        if not landed:
            raise nobody_comes(at)
        records = [one.record for one in landed]
        if state.round + 1 == config.rounds:
            records += self._unfinished(state, at)
        records.sort(key=lambda record: record.partition_id)
        self.end.note_all(landed)
        after = self.end.after(state, [one.update for one in landed if one.update is not None], records)
        after = self._with_flights(state, after, draws)
        summary = RoundRecord(after.round, len(records), 0, None, None, lr=self.asking.lr(after.round))
        summary = replace(summary, trained=sum(record.outcome == "trained" for record in records))
        self.end.finish(self.clock.closed(summary, records, at), records, after, started)
        return after

    def _landed(self, state: State) -> tuple[list[Answer], float, int]:
        """Return the replies until enough have trained, the time of the last, and the number of draws by then.

        There are fewer if no device is at work and none can ever be asked.
        """
        landed: list[Answer] = []
        at, draws, missing = self.clock.now, state.draws, self.asking.place.config.cohort
        parcel = self.asking.parcel(state)
        while missing > 0:
            draws = self._fill(state, parcel, at, draws)
            first, comes = self._flights.first, self._comes(at)
            if first is None and comes == math.inf:
                break
            if first is None or comes < first.fate.ends:
                at = comes
                continue
            at = max(at, first.fate.ends)
            for answer in self._arrived(state, first):
                landed.append(answer)
                missing -= answer.update is not None
        return landed, at, draws

    def _fill(self, state: State, parcel: Parcel, at: float, draws: int) -> int:
        """Begin devices, drawn by seed, until all places at work are taken; return the number of draws so far."""
        able = self.clock.free(at, self._flights.busy) if self._places else ()
        if not len(able):
            return draws
        drawn = sample_cohort(self.asking.place.config.seed, draws + 1, able, self._places)
        jobs = [self.asking.job(state.round + 1, one, state) for one in drawn]
        for found in self.clock.fates(jobs, parcel.whole, at):
            self._flights.begin(Flight(at, self._to_check(found)))
        return draws + 1

    @property
    def _places(self) -> int:
        """How many more devices may be at work."""
        return max(0, (self.asking.place.config.clock.at_work or 0) - len(self._flights))

    def _to_check(self, found: Fate) -> Fate:
        """Return a fate whose job also checks its first step, if it is the first job of the run to compute."""
        if self._checked or not self.asking.checks(found.job.round):
            return found
        if found.outcome is not None or self.asking.fault(found.job) is not None:
            return found
        self._checked = True
        return replace(found, job=replace(found.job, check=True))

    def _comes(self, at: float) -> float:
        """Return when the next device comes for a free place at work; infinity: no device, or no free place."""
        return self.clock.from_when(at, self._flights.busy) if self._places else math.inf

    def _arrived(self, state: State, first: Flight) -> Iterator[Answer]:
        """Yield the answer of the flight that ends first, as part of this update.

        If it takes longer than predicted, nothing is yielded yet; one that takes less time is found at the
        predicted time.
        """
        one = first.partition_id
        if first.fate.outcome is not None and one not in self._answers:
            answer = self._unanswered(state, first)
        else:
            answer = self._computed(state, first)
        if answer.fate.ends > first.fate.ends:
            self._flights.delay(answer.fate)
            return
        self._flights.land()
        self._answers.pop(one, None)
        yield self._of_update(state, first, answer)

    def _computed(self, state: State, flight: Flight) -> Answer:
        """Return a device's answer, computed with those of all devices at work that began with the same weights."""
        round = flight.fate.job.round
        if flight.partition_id not in self._answers:
            coming = (
                one for one in self._flights if one.fate.job.round == round and one.fate.outcome is None
            )
            jobs = {
                one.partition_id: (one.fate.job, one.began)
                for one in coming
                if one.partition_id not in self._answers
            }
            for answer in self.asking.answers(jobs, self._parcel(state, round)):
                self._answers[answer.record.partition_id] = answer
        return self._answers[flight.partition_id]

    def _of_update(self, state: State, flight: Flight, answer: Answer) -> Answer:
        """Return an answer with its place in this update, its change applied to the current weights."""
        round, update = flight.fate.job.round, answer.update
        stale = state.round + 1 - round
        record = replace(answer.record, round=state.round + 1, staleness=stale, began_seconds=flight.began)
        if update is not None and stale:
            share = damping(stale, self.asking.place.config.clock.power)
            update = brought_up(update, _began(state, round).tensors, state.tensors, share)
        self.end.watcher.device_done(record)
        return replace(answer, record=record, update=update)

    def _unanswered(self, state: State, flight: Flight) -> Answer:
        found = flight.fate
        record = self.clock.left_out(found, found.ends, 0)
        return Answer(
            self.asking.unanswered(record, found, self._parcel(state, found.job.round)), None, found
        )

    def _unfinished(self, state: State, at: float) -> Iterator[DeviceRoundRecord]:
        """Yield the rows of devices that are at work when the run ends; their work is lost."""
        for flight in self._flights:
            found, spent = flight.fate, flight.fate.spent
            cut = None if spent is None else spent.until(at - flight.began)
            found = Fate(found.job, cut, at, "late", "the run ended while it was at work")
            yield self._of_update(state, flight, self._unanswered(state, replace(flight, fate=found))).record

    def _parcel(self, state: State, round: int) -> Parcel:
        return self.asking.parcel(_began(state, round))

    def _with_flights(self, before: State, after: State, draws: int) -> State:
        """Return the state after an update with who is at work, and the states that they began from."""
        begun = tuple(
            Begun(one.partition_id, one.fate.job.round, one.began, one.fate.job.check)
            for one in self._flights
        )
        older = {round - 1: _to_keep(_began(before, round)) for round in {one.round for one in begun}}
        return replace(after, begun=begun, older=older, draws=draws)

    def _go_on(self, state: State) -> None:
        """Restore the devices that were at work when the run was stopped; their jobs are made and computed again."""
        self._flights.next_update()
        if len(self._flights):
            return
        for one in state.begun:
            job = self.asking.job(one.round, one.partition_id, state)
            parcel = self._parcel(state, one.round)
            (found,) = self.clock.fates([replace(job, check=one.check)], parcel.whole, one.began)
            self._flights.begin(Flight(one.began, found))


def _began(state: State, round: int) -> State:
    """Return the state that a job of a round began from."""
    return state if state.round == round - 1 else state.older[round - 1]


def _to_keep(state: State) -> State:
    """Return the part of a state that devices which began from it still need."""
    return State(state.round, state.tensors, strategy=state.strategy)
