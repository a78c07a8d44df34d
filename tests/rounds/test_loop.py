from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, failure
from fed_asi.errors import RunError
from fed_asi.fleets.cohort import sample_cohort
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints
from fed_asi.rounds.checkpoints import weights_digest
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import conduct, recording, run_loop
from fed_asi.workplace.address import run_fingerprint, workplace_folder
from fed_asi.workplace.prepare import prepare
from runs import LATER, records, small

WARM = {"name": "asi-published", "layers": 1, "calibration_images": 8}  # whose factors outlive a round


TWINS = {
    "groups": [
        {"name": "starved", "count": 1, "budget": "200 B", "batch_size": 16, "micro_batch": 4},
        {"name": "tight", "count": 3, "budget": "2 KiB", "batch_size": 16, "micro_batch": 4},
        {"name": "roomy", "count": 2, "budget": "unlimited", "batch_size": 16, "micro_batch": 4},
    ],
    "cohort": 5,
    "data": {"public": 32, "limit": 120},
    "method": WARM,
}


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))


def test_a_run_records_everything_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FED_ASI_PROFILES_DIR")  # each calibrates for itself
    for name in ("one", "two"):
        run_loop(small(), tmp_path / name)
    with RunStore.read(tmp_path / "one") as store:
        assert [record.round for record in store.rounds()] == [0, 1, 2]
        assert len(list(store.device_rounds())) == 6
        assert store.exit_code() == 0
        assert len(store.devices()) == 6
    assert records(tmp_path / "one") == records(tmp_path / "two")


DRAWN = {"name": "channels", "pick": "round", "layers": 3, "centered": None}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"method": WARM}, id="warm factors"),
        pytest.param({**TWINS, "measure": {"twins": True, "groups": "every-round"}}, id="twins", marks=LATER),
        pytest.param({"method": DRAWN}, id="channels drawn each round", marks=LATER),
    ],
)
def test_a_resumed_run_ends_with_the_same_bits(changes: dict[str, Any], tmp_path: Path) -> None:
    config = small(rounds=3, **changes)
    run_loop(config, tmp_path / "whole")
    with recording(config, tmp_path / "cut", resume=False) as store:
        place = prepare(config, workplace_folder(tmp_path / "cut"))
        executor = LoopExecutor(place, tmp_path / "cut" / "devices")
        with pytest.raises(SystemError):
            conduct(place, store, CutOff(executor, in_round=3), Unwatched())
        store.set_status("running")
    run_loop(config, tmp_path / "cut", resume=True)
    assert records(tmp_path / "whole") == records(tmp_path / "cut")


class CutOff:
    """Passes jobs on until the given round, where everything ends after the first reply."""

    parallel = 1

    def __init__(self, executor: LoopExecutor, in_round: int) -> None:
        self._executor, self._round = executor, in_round

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: object = None
    ) -> Iterator[Reply]:
        for reply in self._executor.train(jobs, tensors):
            yield reply
            if jobs[0].round == self._round:
                raise SystemError("power cut")


class Spoiled:
    """Loses, spoils, doubles and shuffles replies."""

    parallel = 1

    def __init__(self, executor: LoopExecutor) -> None:
        self._executor = executor

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: object = None
    ) -> Iterator[Reply]:
        by_id = sorted(self._executor.train(jobs, tensors), key=lambda reply: reply.partition_id)
        first, second, third = by_id
        yield replace(third, tensors={name: tensor * float("nan") for name, tensor in third.tensors.items()})
        yield replace(first, partition_id=99)
        if jobs[0].round == 1:
            yield failure(second.partition_id, "killed", "out of memory: the kernel stopped it")
        else:
            yield second
            yield second


def test_every_device_asked_is_accounted_for(tmp_path: Path) -> None:
    config = small()
    with recording(config, tmp_path, resume=False) as store:
        place = prepare(config, workplace_folder(tmp_path))
        conduct(place, store, Spoiled(LoopExecutor(place, tmp_path / "devices")), Unwatched())
        rows = {round: list(store.device_rounds(round)) for round in (1, 2)}
        first, second, third = sample_cohort(config.seed, 1, range(6), 3)
        assert {row.partition_id: row.outcome for row in rows[1]} == {
            first: "failed",
            second: "killed",
            third: "rejected",
        }
        assert next(row.cause for row in rows[1]) == "no reply came back"
        assert sorted(row.outcome for row in rows[2]) == ["failed", "rejected", "trained"]
        assert store.rounds()[1].weights_sha256 == store.rounds()[0].weights_sha256  # no update was usable
        assert store.rounds()[2].weights_sha256 != store.rounds()[0].weights_sha256
        assert store.exit_code() == 0  # every device asked is accounted for, however it ended
        once_more = next(row.partition_id for row in rows[2] if row.outcome == "trained")
        assert [note for note in store.notes() if "is ignored" in note] == [
            "round 1: a reply of device 99 is ignored: it was not asked",
            "round 2: a reply of device 99 is ignored: it was not asked",
            f"round 2: a reply of device {once_more} is ignored: it has answered already",
        ]


@pytest.fixture(scope="module")
def without_twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sequence[dict[str, Any]], str | None]:
    """The records and the weights' hash of a run."""
    home = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(home / "features"))
        run_loop(small(**TWINS), home / "run")
    return records(home / "run")


@pytest.mark.few(1)
@pytest.mark.parametrize("kind", [True, "plain"])
def test_a_run_with_twins_is_the_run_without_to_the_bit(
    kind: Any, without_twins: tuple[Sequence[dict[str, Any]], str | None], tmp_path: Path
) -> None:
    run_loop(small(**TWINS, measure={"twins": kind}), tmp_path / "beside")
    (alone, weights), (beside, same_weights) = without_twins, records(tmp_path / "beside")
    assert weights == same_weights
    outcomes = set()
    for left, right in zip(alone, beside, strict=True):
        outcomes.add(left.get("outcome"))
        own = {name for name in left if not name.startswith(("twin_", "bytes_"))}
        before = {"loss_before", "accuracy_before"} if left.get("outcome") == "excluded" else set()
        assert {name: left[name] for name in own - before} == {name: right[name] for name in own - before}
        assert before <= {name for name in own if right[name] is not None}
        if "outcome" in left:
            assert left["twin_accuracy_after"] is None
            assert right["twin_accuracy_after"] is not None
            assert (right["twin_cosine"] is not None) == (right["outcome"] == "trained")
    assert outcomes == {None, "trained", "excluded"}
    assert run_fingerprint(small()) == run_fingerprint(small(measure={"twins": kind, "groups": "never"}))


def test_resuming_a_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    run_loop(small(rounds=1), tmp_path)
    with pytest.raises(RunError, match="other settings"):
        run_loop(small(rounds=1, seed=9), tmp_path, resume=True)


def test_a_full_disk_keeps_what_was_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = checkpoints.save

    def full(folder: Path, content: checkpoints.Checkpoint) -> None:
        if content.round == 2:
            raise RunError("cannot write: No space left on device")
        saved(folder, content)

    monkeypatch.setattr(checkpoints, "save", full)
    with pytest.raises(RunError, match="No space left"):
        run_loop(small(), tmp_path)
    with RunStore.read(tmp_path) as store:
        assert [record.round for record in store.rounds()] == [0, 1]
        assert store.run().status == "failed"
    monkeypatch.setattr(checkpoints, "save", saved)
    run_loop(small(), tmp_path, resume=True)
    with RunStore.read(tmp_path) as store:
        assert store.exit_code() == 0


def test_where_it_runs_is_no_part_of_the_fingerprint() -> None:
    config = small()
    assert run_fingerprint(config) == run_fingerprint(small(compute={"backend": "flower", "workers": 1}))
    assert run_fingerprint(config) != run_fingerprint(small(compute={"threads": 2}))
    assert run_fingerprint(config) != run_fingerprint(small(seed=5))


def test_digest_sees_names_shapes_and_bits() -> None:
    tensors = {"a": torch.zeros(2, 3)}
    seen = {
        weights_digest(tensors),
        weights_digest({"b": torch.zeros(2, 3)}),
        weights_digest({"a": torch.zeros(3, 2)}),
        weights_digest({"a": -torch.zeros(2, 3)}),
    }
    assert len(seen) == 4
