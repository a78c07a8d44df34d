"""Calibration from sums: they add up to what pooled images give, and runs plan from them on both back ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fed_asi.data.shards import Shards
from fed_asi.devices import calibration
from fed_asi.devices.reply import Reply, failure
from fed_asi.devices.sums import Expected
from fed_asi.errors import RunError
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.resources import Resources
from fed_asi.planning.profile import Candidate, Profile
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds import pooled_calibration
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import recording, run_loop
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
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    return prepare(small(method=PLANNER | {"calibration": "federated"}, groups=FEW), tmp_path / "workplace")


def first_pass(place: Workplace, devices: list[int]) -> list[dict[str, torch.Tensor]]:
    return [calibration.sums_for(place, i, calibration.SPECTRA, {}) for i in devices]


def test_sums_of_two_devices_are_those_of_their_images_together(place: Workplace) -> None:
    rows = np.arange(
        16
    )  # in micro-batches of 2: those of devices 0 and 1, one after another, are those of device 2
    shards = Shards(np.concatenate([rows[:6], rows[6:], rows]), np.array([0, 6, 16, 32]))
    data = place.config.data.model_copy(update={"holdout": 0.0})
    pair = replace(place, shards=shards, config=place.config.model_copy(update={"data": data}))
    *apart, together = first_pass(pair, [0, 1, 2])
    added = pooled_calibration.add(apart)
    assert set(added) == set(together)
    assert any(name.endswith(" 2 1") for name in together)  # the channels' spectra in micro-batches of 2
    for name, vector in together.items():
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
            # Of the input as it is, a device's own holds what plans may take; everyone's holds what was tried.
            mine, own = (
                {c.method: c for c in tried if _centred(c)} for tried in (ours.candidates[size], candidates)
            )
            assert set(mine) == set(own)
            for c in own.values():
                assert mine[c.method].saved_bytes == c.saved_bytes
                assert mine[c.method].error == pytest.approx(c.error, rel=1e-3, abs=1e-4)


def _centred(candidate: Candidate) -> bool:
    """Whether plans take this form whatever else there is."""
    return candidate.method.centred() == candidate.method


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


@pytest.mark.parametrize(
    "whose", [pytest.param("device", marks=(pytest.mark.slow, pytest.mark.computes)), "federated"]
)
def test_a_run_plans_from_it_and_can_be_repeated_and_resumed(whose: str, tmp_path: Path) -> None:
    method = PLANNER | {"calibration": whose, "calibration_devices": 2, "calibration_images": 8}
    config = small(method=method, groups=FEW, cohort=2)
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


class OneSends(LoopExecutor):
    """Devices of which one sends something else in one pass of the calibration; in training all are honest."""

    def __init__(
        self, place: Workplace, states: Path, phase: str, device: int, spoil: Callable[[Reply], Reply]
    ) -> None:
        super().__init__(place, states)
        self.phase, self.device, self.spoil = phase, device, spoil

    def train(self, jobs, tensors, sizes=None):  # type: ignore[no-untyped-def]
        for reply in super().train(jobs, tensors, sizes):
            hit = jobs[0].phase == self.phase and reply.partition_id == self.device
            yield self.spoil(reply) if hit else reply


def changed(which: str, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Reply], Reply]:
    """Return what changes the first vector whose name ends so; None takes it away."""

    def spoil(reply: Reply) -> Reply:
        name = next(name for name in sorted(reply.tensors) if name.endswith(which))
        found = change(reply.tensors[name].clone())
        others = {key: vector for key, vector in reply.tensors.items() if key != name}
        return replace(reply, tensors=others if found is None else {**others, name: found})

    return spoil


SPOILED: dict[str, tuple[str, Callable[[Reply], Reply], str]] = {
    "killed": (
        "spectra",
        lambda reply: failure(reply.partition_id, "killed", "stopped by a test"),
        "stopped by",
    ),
    "missing": ("spectra", changed(" channels", lambda _vector: None), "missing vector "),
    "surplus": (
        "spectra",
        lambda r: replace(r, tensors={**r.tensors, "x": torch.ones(1)}),
        "surplus vector x",
    ),
    "type": ("spectra", changed(" channels", lambda v: v.float()), "torch.float32 of shape"),
    "shape": ("spectra", changed(" channels", lambda v: v[:-1]), "not torch.float64 of ("),
    "nan": ("spectra", changed(" channels", lambda v: v * float("nan")), "holds nan at 0, and may hold"),
    "huge": ("spectra", changed(" channels", lambda v: v * 0 + 1e40), "holds 1e+40 at 0, and may hold"),
    "negative": ("spectra", changed(" 2 0", lambda v: v - 1e9), "and may hold 0 to 1e+30"),
    "images": ("spectra", changed("images", lambda v: v + 1), "images holds "),
    "energies": ("trials", changed(" energies", lambda v: v - 1e9), "and may hold 0 to 1e+30"),
    "bytes": ("trials", changed(" 2", lambda v: v + 10**6), " at 0, and may hold "),
    "no trials": ("trials", changed(" 2", lambda _vector: None), "missing vector "),
}


@pytest.mark.few(4)
@pytest.mark.parametrize("what", SPOILED)
def test_a_device_whose_sums_are_wrong_is_left_out_and_named(
    what: str, federated: tuple[RunConfig, Workplace], tmp_path: Path
) -> None:
    config, place = federated
    phase, spoil, cause = SPOILED[what]
    first = pooled_calibration.choose(place)[0]
    with recording(config, tmp_path / "run", resume=False) as store:
        executor = OneSends(place, tmp_path / "devices", phase, first, spoil)
        pooled_calibration.calibrate_on_devices(place, store, executor, Unwatched())
        (left_out, said) = store.notes()
    assert left_out.startswith(f"calibration: device {first} left out: ")
    assert cause in left_out
    assert "sums of 2 devices" in said
    made = Profile.load(place.folder / calibration.EVERYONE)
    assert made.num_examples > 0


@pytest.fixture
def federated(tmp_path: Path) -> tuple[RunConfig, Workplace]:
    method = PLANNER | {
        "calibration": "federated",
        "calibration_devices": 3,
        "methods": ["quantized", "vanilla"],
    }
    few = [{**group, "count": 2} for group in FEW]
    config = small(method=method, groups=few, data={"limit": 90})
    return config, prepare(config, tmp_path / "workplace")


@pytest.mark.parametrize("extreme", [0.0, 1e30])
def test_extreme_sums_within_bounds_still_make_a_profile(
    extreme: float, federated: tuple[RunConfig, Workplace]
) -> None:
    """Whatever passes the check, the pooled profile is made, read back, and planned from."""
    _, place = federated
    for methods in (("quantized", "vanilla"), ("asi", "vanilla")):
        method = place.config.method.model_copy(update={"methods": methods})
        there = replace(place, config=place.config.model_copy(update={"method": method}))
        pooled: dict[str, torch.Tensor] = {}
        for phase in (calibration.SPECTRA, calibration.TRIALS):
            expected = Expected.of(there, phase, pooled)
            sent = []
            for i in (0, 1):
                bounds = expected.vectors(i)
                sent.append(
                    {n: torch.full_like(low, extreme).clamp(low, high) for n, (low, high) in bounds.items()}
                )
                expected.check(i, sent[-1])
            pooled = pooled_calibration.add(sent) if phase == calibration.SPECTRA else pooled
        made = pooled_calibration.pooled_profile(there, pooled, sent)
        assert Profile.from_json(made.to_json()) == made
        assert there.plans.replanned(made).first(Resources(None, 16, 2)).planned_bytes > 0


def test_without_any_sums_the_run_ends_with_what_to_do(
    federated: tuple[RunConfig, Workplace], tmp_path: Path
) -> None:
    config, place = federated

    class NobodyAnswers(LoopExecutor):
        def train(self, jobs, tensors, sizes=None):  # type: ignore[no-untyped-def]
            yield from (failure(job.partition_id, "timeout", "asleep") for job in jobs)

    executor = NobodyAnswers(place, tmp_path / "devices")
    with recording(config, tmp_path / "run", resume=False) as store:
        with pytest.raises(RunError, match=r'no device took part in the calibration; use .* = "server"'):
            pooled_calibration.calibrate_on_devices(place, store, executor, Unwatched())
        assert len(store.notes()) == 3
