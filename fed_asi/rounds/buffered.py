"""Buffered asynchrony: devices come and go by the clock, and each so many replies make an update of the weights.

A queue of events on the run's clock. Who is free is asked as soon as there is a place at work, with the weights of
then; replies are handled in the order in which they come. What a reply is depends on the job and its weights alone, so
it is computed late, together with others that began with the same weights, and never changes what happens when.
Source: Nguyen et al. 2022 (arXiv 2106.06639), algorithm 1.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.rounds.answers import Answer
from fed_asi.rounds.asking import Asking, Parcel
from fed_asi.rounds.cohort import sample_cohort
from fed_asi.rounds.fates import Fate
from fed_asi.rounds.round_clock import RoundClock, nobody_comes
from fed_asi.rounds.round_end import RoundEnd
from fed_asi.rounds.state import Begun, State
from fed_asi.strategies.stale import brought_up, damping


@dataclass(frozen=True, slots=True)
class Flight:
    """A device at work. began: on the run's clock. fate: what becomes of it, by its own plan until it is known."""

    began: float
    fate: Fate

    @property
    def order(self) -> tuple[float, int]:
        """By which flights end first: when, then whose they are."""
        return self.fate.ends, self.fate.job.partition_id


@dataclass(slots=True)
class Buffered:
    """Rounds that are updates: each is made of the next replies that train, as many as the cohort."""

    asking: Asking
    clock: RoundClock
    end: RoundEnd
    _flights: dict[int, Flight] = field(default_factory=dict)
    _answers: dict[int, Answer] = field(default_factory=dict)  # computed, and not yet due
    _checked: bool = False

    def next(self, state: State) -> State:
        """Return the state after the next update, which is recorded. Raises RunError where nobody comes any more."""
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
        """Return what came until there were enough that train, when that was, and how often was drawn by then.

        Fewer come where nobody is at work and nobody else can ever be asked.
        """
        landed: list[Answer] = []
        at, draws, wanted = self.clock.now, state.draws, self.asking.place.config.cohort
        while sum(one.update is not None for one in landed) < wanted:
            busy = {*self._flights, *(one.record.partition_id for one in landed)}
            draws = self._fill(state, at, busy, draws)
            first = min(self._flights.values(), key=lambda one: one.order, default=None)
            comes = self._comes(at, busy)
            if first is None and comes == math.inf:
                break
            if first is None or comes < first.fate.ends:
                at = comes
                continue
            at = max(at, first.fate.ends)
            landed += self._arrived(state, first)
        return landed, at, draws

    def _fill(self, state: State, at: float, busy: set[int], draws: int) -> int:
        """Let as many begin as there are places at work, drawn by seed; return how often was drawn by now.

        busy: who is at work or has replied to this update; grows by those who begin.
        """
        free = self._places
        able = self.clock.free(at, busy) if free else []
        if not able:
            return draws
        config = self.asking.place.config
        round, parcel = state.round + 1, self.asking.parcel(state)
        drawn = sample_cohort(config.seed, draws + 1, able, free)
        jobs = [self.asking.job(round, one, state) for one in drawn]
        for found in self.clock.fates(jobs, parcel.whole, at):
            self._flights[found.job.partition_id] = Flight(at, self._to_check(found))
        busy |= set(drawn)
        return draws + 1

    @property
    def _places(self) -> int:
        return max(0, (self.asking.place.config.clock.at_work or 0) - len(self._flights))

    def _to_check(self, found: Fate) -> Fate:
        """Return a fate whose job also holds its first step against another, if it is the run's first to compute."""
        if self._checked or not self.asking.checks(found.job.round):
            return found
        if found.outcome is not None or self.asking.fault(found.job) is not None:
            return found
        self._checked = True
        return replace(found, job=replace(found.job, check=True))

    def _comes(self, at: float, busy: set[int]) -> float:
        """Return when somebody comes for whom there is a place at work; infinity: nobody, or there is none."""
        return self.clock.from_when(at, busy) if self._places else math.inf

    def _arrived(self, state: State, flight: Flight) -> Iterator[Answer]:
        """Yield the answer of a flight that ends, as the update has it; nothing where it takes longer than foretold."""
        one = flight.fate.job.partition_id
        answer = self._answers.get(one)
        if answer is None and flight.fate.outcome is not None:
            answer = self._unanswered(state, flight)
        elif answer is None:
            self._compute(state, flight)
            answer = self._answers[one]
        if answer.fate.ends > flight.fate.ends:
            self._flights[one] = replace(flight, fate=answer.fate)
            return
        del self._flights[one]
        self._answers.pop(one, None)
        yield self._of_update(state, flight, answer)

    def _compute(self, state: State, flight: Flight) -> None:
        """Let a device compute, and with it all others at work that began with the same weights and will reply."""
        round = flight.fate.job.round
        together = {
            one: (other.fate.job, other.began)
            for one, other in self._flights.items()
            if other.fate.job.round == round and other.fate.outcome is None and one not in self._answers
        }
        for answer in self.asking.answers(together, self._parcel(state, round)):
            self._answers[answer.record.partition_id] = answer

    def _of_update(self, state: State, flight: Flight, answer: Answer) -> Answer:
        """Return an answer with its place in the update that is made, its move brought up to the weights of now."""
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
        """Yield the rows of those who are at work when the run ends: nobody has anything of what they did."""
        for flight in self._flights.values():
            found, spent = flight.fate, flight.fate.spent
            cut = None if spent is None else spent.until(at - flight.began)
            found = Fate(found.job, cut, at, "late", "the run ended while it was at work")
            yield self._of_update(state, flight, self._unanswered(state, replace(flight, fate=found))).record

    def _parcel(self, state: State, round: int) -> Parcel:
        return self.asking.parcel(_began(state, round))

    def _with_flights(self, before: State, after: State, draws: int) -> State:
        """Return the state after an update with who is at work, and the states that they began from."""
        flights = sorted(self._flights.values(), key=lambda one: one.fate.job.partition_id)
        begun = tuple(
            Begun(job.partition_id, job.round, one.began, job.check)
            for one in flights
            for job in (one.fate.job,)
        )
        older = {one.round - 1: replace(_began(before, one.round), older={}, begun=()) for one in begun}
        return replace(after, begun=begun, older=older, draws=draws)

    def _go_on(self, state: State) -> None:
        """Take up who was at work when the run was stopped: their jobs are made again, and done again."""
        for one in state.begun:
            if one.partition_id in self._flights:
                continue
            job = self.asking.job(one.round, one.partition_id, state)
            parcel = self._parcel(state, one.round)
            (found,) = self.clock.fates([replace(job, check=one.check)], parcel.whole, one.began)
            self._flights[one.partition_id] = Flight(one.began, found)


def _began(state: State, round: int) -> State:
    """Return the state that a job of a round began from."""
    return state if state.round == round - 1 else state.older[round - 1]
