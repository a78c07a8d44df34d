"""The round from which a stopped run resumes: the last whose weights and warm factors are all there.

Nothing that is lost or damaged is ever replaced by something else, as the run would end with other weights. A round
with an incomplete state is repeated from the one before, with the same bits; if that is incomplete too, the run
stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fed_asi.devices.warm_factors import load_factors
from fed_asi.errors import RunError
from fed_asi.files import round_file
from fed_asi.fleets.cohort import asks_by_number, cohort_of
from fed_asi.fleets.config import RunConfig
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints
from fed_asi.rounds.checkpoints import KEPT_CHECKPOINTS, Checkpoint, weights_digest
from fed_asi.rounds.state import State
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.place import Workplace


@dataclass(frozen=True, slots=True)
class Resuming:
    """A run to resume. weights: the folder of its checkpoints. states: of the devices' factors; None: elsewhere."""

    place: Workplace
    store: RunStore
    weights: Path
    states: Path | None

    def last_whole(self) -> State:
        """Return the state to resume from; later records, if any, are removed, with a note.

        Raises RunError, one line with the file to blame, where there is none.
        """
        digests = {record.round: record.weights_sha256 for record in self.store.rounds()}
        self._check_beginning(digests.get(0))
        last, problems = max(digests), list[str]()
        for round in range(last, max(-1, last - KEPT_CHECKPOINTS), -1):
            try:
                found = self._state(round)
            except RunError as error:
                problems.append(str(error))
                continue
            if problems:
                self.store.forget_after(round)
                self.store.note(
                    f"resumed after round {round}, because what followed is incomplete: {problems[0]}"
                )
            return found
        raise RunError(f"{self.store.folder} cannot be resumed: {problems[0]}; put it back, or start again")

    def _check_beginning(self, digest: str | None) -> None:
        """Raise RunError where the workplace was prepared again and differs."""
        if digest is not None and weights_digest(self.place.reference) != digest:
            why = "other data, weights or torch"
            raise RunError(
                f"{self.place.folder} has other weights than the run began with ({why}): start again"
            )

    def _state(self, round: int) -> State:
        found = self._checkpoint(round)
        tensors = found.tensors
        self._check_digest(round, tensors)
        kept: dict[int, int] = {}
        for row in self.store.device_rounds():
            if row.outcome == "trained" and row.round <= round:
                kept[row.partition_id] = kept_factors(row)
        self._check_factors(round, kept)
        older = {number: self._older(number) for number in {one.round - 1 for one in found.begun}}
        return State(round, tensors, kept, found.strategy, found.begun, older, found.draws)

    def _older(self, round: int) -> State:
        """Return the state that devices at work began from. Raises RunError where it is gone or another."""
        found = self._checkpoint(round)
        self._check_digest(round, found.tensors)
        return State(round, found.tensors, strategy=found.strategy)

    def _check_digest(self, round: int, tensors: dict[str, Tensor]) -> None:
        digest = {record.round: record.weights_sha256 for record in self.store.rounds()}.get(round)
        if digest is not None and weights_digest(tensors) != digest:
            raise RunError(f"{round_file(self.weights, round)} holds other weights than the records say")

    def _checkpoint(self, round: int) -> Checkpoint:
        fingerprint = run_fingerprint(self.place.config)
        if round == 0:  # as at the beginning
            tensors = {name: tensor.clone() for name, tensor in self.place.reference.items()}
            return Checkpoint(round, fingerprint, tensors)
        return checkpoints.load(self.weights, round, fingerprint)

    def _check_factors(self, round: int, kept: dict[int, int]) -> None:
        """Raise RunError where a device that will be asked again has lost the factors it starts from."""
        if self.states is None:
            return
        for partition_id in sorted(_asked_after(round, self.place.config) & kept.keys()):
            try:
                load_factors(self.states, partition_id, kept[partition_id])
            except RunError as error:
                raise RunError(
                    f"device {partition_id} has lost its warm factors of round {kept[partition_id]}: {error}"
                ) from error


def kept_factors(row: DeviceRoundRecord) -> int:
    """Return the round whose state a trained device keeps: that of its job, or 0 if it keeps nothing."""
    round = row.round - (row.staleness or 0)
    if row.kept_bytes is not None:
        return round if row.kept_bytes else 0
    if row.factors_bytes is None:  # recorded before this was: "asi" alone was warm then
        return round if "asi" in (row.method or "").split("+") else 0
    return round if row.factors_bytes else 0


def _asked_after(round: int, config: RunConfig) -> set[int]:
    """Return the devices that later rounds ask; all of them if that depends on who will be present."""
    if not asks_by_number(config):
        return set(range(config.num_devices))
    return {one for number in range(round + 1, config.rounds + 1) for one in cohort_of(config, number)}
