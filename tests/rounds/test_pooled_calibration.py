"""Calibration by sums: what adds up is what pooled images give, and runs plan from it on both back ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fed_asi.devices import calibration
from fed_asi.devices.reply import failure
from fed_asi.planning.profile import Profile
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds import pooled_calibration
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import conduct, recording, run_loop
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import records, small

PLANNER = {
    "name": "planner",
    "methods": ["asi", "vanilla"],
    "centered": None,
    "layers": 1,
    "calibration_images": 16,
}
FEW = [  # micro-batches to calibrate for
    {"name": "tight", "count": 3, "budget": "160 KiB", "batch_size": 16, "micro_batch": 2},
    {"name": "roomy", "count": 3, "budget": "unlimited", "batch_size": 16, "micro_batch": 2},
]


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return prepare(small(method=PLANNER | {"calibration": "federated"}, groups=FEW), tmp_path / "workplace")


def first_pass(place: Workplace, devices: list[int]) -> list[dict[str, torch.Tensor]]:
    return [calibration.sums_for(place, i, calibration.SPECTRA, {}) for i in devices]


def test_sums_of_two_devices_are_those_of_their_images_together(place: Workplace) -> None:
    shards = [place.shard(i).train[:16] for i in (0, 1)]
    assert all(len(rows) >= 8 for rows in shards)
    even = [rows[: len(rows) // 8 * 8] for rows in shards]  # so that micro-batches of 8 are the same ones

    records = [calibration._recorded(place, place.inputs(torch.from_numpy(r)), place.labels[r]) for r in even]
    both = torch.cat([torch.from_numpy(r) for r in even])
    together = calibration._recorded(place, place.inputs(both), place.labels[both])
    for first, second, pooled in zip(*records, together, strict=True):
        added = pooled_calibration.add([calibration._sums(item, [1, 8]) for item in (first, second)])
        for name, vector in calibration._sums(pooled, [1, 8]).items():
            torch.testing.assert_close(added[name], vector, rtol=1e-6, atol=1e-9)


def test_one_devices_sums_give_its_own_profile(place: Workplace) -> None:
    pooled = pooled_calibration.add(first_pass(place, [2]))
    sent = [calibration.sums_for(place, 2, calibration.TRIALS, pooled)]
    found, expected = (
        pooled_calibration.pooled_profile(place, pooled, sent),
        calibration.own_profile(place, 2),
    )
    assert found.micro_batches == expected.micro_batches
    assert found.floors == expected.floors
    for ours, theirs in zip(found.layers, expected.layers, strict=True):
        assert ours.weight_norm == pytest.approx(theirs.weight_norm, rel=1e-5)
        assert ours.centered_energy == pytest.approx(theirs.centered_energy, rel=1e-5)
        assert ours.mean == pytest.approx(theirs.mean, rel=1e-3, abs=1e-5)
        for size, candidates in theirs.candidates.items():
            mine = {c.method: c for c in ours.candidates[size]}
            assert set(mine) == {c.method for c in candidates}
            for c in candidates:
                assert mine[c.method].saved_bytes == c.saved_bytes
                assert mine[c.method].error == pytest.approx(c.error, rel=1e-3, abs=1e-4)


def test_two_devices_are_weighted_by_their_images(place: Workplace) -> None:
    pooled = pooled_calibration.add(first_pass(place, [0, 1]))
    sent = [calibration.sums_for(place, i, calibration.TRIALS, pooled) for i in (0, 1)]
    found = pooled_calibration.pooled_profile(place, pooled, sent)
    name = found.layers[0].name
    counts = [float(part["images"]) for part in sent]
    squares = [float(part[f"{name} energies"][0]) for part in sent]
    mean = sum(c * s for c, s in zip(counts, squares, strict=True)) / sum(counts)
    assert found.layers[0].weight_norm == pytest.approx(mean**0.5)
    assert found.num_examples == sum(counts)


@pytest.mark.parametrize("whose", ["device", "federated"])
def test_a_run_plans_from_it_and_can_be_repeated_and_resumed(whose: str, tmp_path: Path) -> None:
    config = small(method=PLANNER | {"calibration": whose, "calibration_devices": 2}, groups=FEW)
    for name in ("one", "two"):
        run_loop(config, tmp_path / name)
    assert records(tmp_path / "one") == records(tmp_path / "two")
    with RunStore.read(tmp_path / "one") as store:
        assert {d.outcome for d in store.device_rounds()} == {"trained"}
        assert all((d.measured_bytes or 0) <= (d.budget_bytes or 10**9) for d in store.device_rounds())
        assert ("no image left" in str(store.notes())) is (whose == "federated")
    workplace = tmp_path / "one" / "workplace"
    server = Profile.load(workplace / "profile.json")
    made = list(workplace.glob("federated.json")) + list(workplace.glob("profiles/*.json"))
    assert made
    assert all(Profile.load(path) != server for path in made)


def test_a_device_that_fails_is_left_out_and_named(tmp_path: Path) -> None:
    config = small(method=PLANNER | {"calibration": "federated", "calibration_devices": 3}, groups=FEW)

    class OneFails(LoopExecutor):
        def train(self, jobs, tensors, sizes=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
            for job in jobs:
                if job.phase != "train" and job.partition_id == jobs[0].partition_id == first:
                    yield failure(job.partition_id, "killed", "stopped by a test")
                else:
                    yield from super().train([job], tensors)

    with recording(config, tmp_path / "run", resume=False) as store:
        place = prepare(config, tmp_path / "run" / "workplace")
        first = pooled_calibration.choose(place)[0]
        conduct(place, store, OneFails(place, tmp_path / "devices"), Unwatched())
        notes = " ".join(store.notes())
    assert f"device {first} left out: stopped by a test" in notes
    assert "sums of 2 devices" in notes
