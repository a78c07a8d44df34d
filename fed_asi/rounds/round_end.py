"""The end of a round: updates are combined, the new weights judged and saved, and everything recorded."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fed_asi.devices.exchange import Exchange
from fed_asi.devices.reply import FRESH
from fed_asi.errors import RunError
from fed_asi.fleets.fleet import Fleet
from fed_asi.machine import cpus_here
from fed_asi.results.progress import Watcher
from fed_asi.results.schema import DeviceRoundRecord, GroupRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints
from fed_asi.rounds.answers import Answer
from fed_asi.rounds.checkpoints import weights_digest
from fed_asi.rounds.group_judging import judge_groups
from fed_asi.rounds.resuming import kept_factors
from fed_asi.rounds.state import State
from fed_asi.strategies import Round, Update
from fed_asi.training.evaluation import evaluate, load_tensors_
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.place import Workplace


@dataclass(frozen=True, slots=True)
class RoundEnd:
    """Ends rounds. states: where the warm factors of devices are seen from here; None: on machines of their own."""

    place: Workplace
    fleet: Fleet
    store: RunStore
    watcher: Watcher
    exchange: Exchange
    states: Path | None

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints are."""
        return self.store.folder / "checkpoints"

    def note(self, round: int, text: str) -> None:
        """Record a line on a round."""
        self.store.note(f"round {round}: {text}")

    def note_all(self, answers: Iterable[Answer]) -> None:
        """Record the notes of devices, by partition id.

        Raises RunError where a device that keeps its factors here lost them: the run would end with other weights.
        A device on a machine of its own may lose its disk, as it may drop out: that is noted, and the run goes on.
        """
        ordered = sorted(answers, key=lambda one: one.record.partition_id)
        texts = [text for one in ordered for text in one.notes]
        lost = [text for text in texts if FRESH in text]
        if lost and self.states is not None:
            raise RunError(f"{lost[0]}; so the round is not recorded")
        for text in texts:
            self.store.note(text)

    def after(self, before: State, updates: list[Update], records: Iterable[DeviceRoundRecord]) -> State:
        """Return the state after a strategy combined a round's updates, with what devices keep; record its notes."""
        round = before.round + 1
        momentum = self.place.config.train.momentum
        given = Round.of(round, before.tensors, updates, len(self.fleet), momentum)
        found = self.exchange.strategy.combine(given, before.strategy)
        for text in found.notes:
            self.note(round, text)
        kept = {one.partition_id: kept_factors(one) for one in records if one.outcome == "trained"}
        return State(round, found.tensors, {**before.factors_round, **kept}, found.state)

    def finish(
        self, summary: RoundRecord, records: Sequence[DeviceRoundRecord], state: State, started: float
    ) -> None:
        """Judge the weights, write their checkpoint, then the records, which make the round count.

        started: processor time when the round began. Raises RunError where the disk fails.
        """
        place = self.place
        load_tensors_(place.tail, state.tensors)
        found = evaluate(
            place.tail, place.test_features, place.test_labels, place.num_classes, workers=cpus_here()
        )
        groups = self._groups(summary.round)
        checkpoints.save(self.checkpoints, checkpoints.of(state, run_fingerprint(place.config), records))
        record = replace(
            summary,
            loss=found.loss,
            accuracy=found.accuracy,
            worst_class_accuracy=found.worst_class_accuracy,
            host_seconds=time.perf_counter() - started,
            bytes_up=sum(one.bytes_up or 0 for one in records),
            bytes_down=sum(one.bytes_down or 0 for one in records),
            weights_sha256=weights_digest(state.tensors),
        )
        self.store.add_round(record, records, groups)
        self.watcher.round_done(record)

    def _groups(self, round: int) -> list[GroupRoundRecord]:
        """Return the accuracy for each group with the weights that the tail has now, if this round is to be judged.

        With `groups = "ends"`, the first weights are judged after the last round, so that no round waits for features
        of all held-out images. The tail has the first weights afterwards.
        """
        place, when = self.place, self.place.config.measure.groups
        if when == "never" or (when == "ends" and round < place.config.rounds):
            return []
        found = judge_groups(place, self.fleet, round)
        if when == "ends":
            load_tensors_(place.tail, place.reference)
            found = judge_groups(place, self.fleet, 0) + found
        return found
