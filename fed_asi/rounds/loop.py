"""The round loop, shared by the plain loop and Flower, so that both give the same bits.

An Executor brings jobs to devices and returns their answers, in any order. Which devices are asked, what is averaged
and what is recorded is decided here, from seeds and partition ids alone.
"""

from __future__ import annotations

import time
from pathlib import Path

from torch import Tensor

from fed_asi.devices.exchange import Exchange
from fed_asi.devices.job import Job
from fed_asi.fleets import fleet
from fed_asi.fleets.fleet import Fleet
from fed_asi.results.progress import Watcher
from fed_asi.results.schema import RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.rounds.asking import Asking
from fed_asi.rounds.buffered import Buffered
from fed_asi.rounds.executor import Executor
from fed_asi.rounds.pace_check import check_pace
from fed_asi.rounds.resuming import Resuming
from fed_asi.rounds.round_clock import RoundClock
from fed_asi.rounds.round_end import RoundEnd
from fed_asi.rounds.state import State
from fed_asi.rounds.synchronous import Synchronous
from fed_asi.workplace.place import Workplace


class Rounds:
    """A run's rounds, from the first that is not recorded to the last.

    states: where the warm factors of its devices are seen from here; None: on machines of their own.
    """

    def __init__(
        self,
        place: Workplace,
        store: RunStore,
        executor: Executor,
        watcher: Watcher,
        states: Path | None = None,
    ) -> None:
        self.fleet: Fleet = fleet.build(place.config)
        self._place, self._store, self._states = place, store, states
        self._clock, exchange = RoundClock(place, self.fleet), Exchange.of(place.config)
        self._end = RoundEnd(place, self.fleet, store, watcher, exchange, states)
        self._asking = Asking(place, self.fleet, executor, self._clock, exchange, self._end.note)
        kind = Synchronous if place.config.clock.at_work is None else Buffered
        self._kind = kind(self._asking, self._clock, self._end)

    def run(self) -> dict[str, Tensor]:
        """Return the last round's tensors. Raises RunError where the disk fails; what is recorded stays."""
        state = self._start()
        while state.round < self._place.config.rounds:
            state = self._kind.next(state)
        return state.tensors

    def jobs(self, round: int) -> list[Job]:
        """Return what a round would ask of devices that keep nothing, by partition id."""
        return Synchronous(self._asking, self._clock, self._end).jobs(round, State(round - 1, {}))

    def _start(self) -> State:
        if self._store.rounds():
            state = Resuming(self._place, self._store, self._end.checkpoints, self._states).last_whole()
            self._clock.set(self._store.rounds(), self._store.device_rounds())
            return state
        state = State(0, {name: tensor.clone() for name, tensor in self._place.reference.items()})
        begun = self._clock.closed(RoundRecord(0, 0, 0, None, None), [], 0.0)
        self._clock.check(self._asking.job(1, one, state) for one in self.fleet.partition_ids)
        for text in (*self._clock.notes(), *check_pace(self._place, self.fleet)):
            self._store.note(text)
        self._end.finish(begun, [], state, time.perf_counter())
        return state
