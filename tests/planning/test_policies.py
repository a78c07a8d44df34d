"""What a fleet does about a device over its budget, and budgets that change by round: small real runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fed_asi.devices.job import Job
from fed_asi.devices.work import train_locally
from fed_asi.fleets import over_budget
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.resources import Resources
from fed_asi.planning.device_plans import DevicePlans
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.results.store import RunStore
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.run import conduct, recording, run_loop
from fed_asi.units import format_bytes
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import records, small

KIB = 1024
GROUPS = [  # 64 KiB are below the smallest plan of micro-batch 8 with both layers kept whole
    {"name": "poor", "count": 3, "budget": "64 KiB", "batch_size": 16, "micro_batch": 8},
    {"name": "roomy", "count": 3, "budget": "unlimited", "batch_size": 16, "micro_batch": 8},
]


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
    monkeypatch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))


def device_rounds(folder: Path) -> list[DeviceRoundRecord]:
    with RunStore.read(folder) as store:
        return list(store.device_rounds())


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("policy", "done"),
    [
        ("exclude", None),
        ("fewer-layers", lambda d: d.trained_layers < 3 and d.micro_batch == 8),
        ("smaller-micro-batch", lambda d: d.trained_layers == 3 and d.micro_batch < 8),
    ],
)
def test_a_budget_below_the_plan_is_answered_by_the_policy(policy: str, done: object, tmp_path: Path) -> None:
    config = small(method={"over_budget": policy}, groups=GROUPS, rounds=3)
    run_loop(config, tmp_path / "run")
    rows = device_rounds(tmp_path / "run")
    poor = [row for row in rows if row.partition_id < 3]
    roomy = [row for row in rows if row.partition_id >= 3]
    assert poor
    assert {row.outcome for row in roomy} == {"trained"}
    assert {row.policy for row in roomy} == {None}
    for row in poor:
        if done is None:
            assert (row.outcome, row.policy) == ("excluded", None)
            assert "below the smallest plan" in (row.cause or "")
        else:
            assert (row.outcome, row.policy) == ("trained", policy)
            assert row.measured_bytes is not None
            assert row.measured_bytes <= 64 * KIB
            assert done(row), row  # type: ignore[operator]


def test_a_policy_of_ones_own_is_named_and_recorded_as_the_others(tmp_path: Path, own_names: None) -> None:
    def classifier_alone(resources: Resources, offer: over_budget.Offer) -> list[over_budget.Try]:
        return [over_budget.Try(resources, offer.grid, 0)]

    over_budget.register("classifier-alone", classifier_alone)
    run_loop(small(method={"over_budget": "classifier-alone"}, groups=GROUPS, rounds=1), tmp_path / "run")
    poor = [row for row in device_rounds(tmp_path / "run") if row.partition_id < 3]
    assert {(row.outcome, row.policy, row.trained_layers) for row in poor} == {
        ("trained", "classifier-alone", 1)
    }


def grown(place: Workplace, device: int) -> Workplace:
    """A place where one device's inputs are twice as wide and high, as by a wrong resolution."""
    assert place.features is not None
    wide = place.features.repeat_interleave(2, -1).repeat_interleave(2, -2)
    return replace(place, features=wide, own_plans={})


class OneGrows(LoopExecutor):
    """A fleet in which device 0 feeds its network images of twice the resolution."""

    def __init__(self, place: Workplace, states: Path) -> None:
        super().__init__(place, states)
        self._wrong = LoopExecutor(grown(place, 0), states)

    def train(self, jobs, tensors, sizes=None):  # type: ignore[no-untyped-def]
        for job in jobs:
            executor = self._wrong if job.partition_id == 0 else super()
            yield from executor.train([job], tensors)


@pytest.mark.few(2)
@pytest.mark.parametrize("policy", ["exclude", "lower-ranks", "smaller-micro-batch"])
def test_activations_that_grow_by_mistake_are_caught_and_answered(policy: str, tmp_path: Path) -> None:
    """The plan's promise is broken by the data: the step stops, the round goes on, the record says why."""
    groups = [{"name": "all", "count": 4, "budget": "48 KiB", "batch_size": 16, "micro_batch": 4}]
    method = {"name": "asi", "layers": 2, "over_budget": policy, "calibration_images": 8}
    config = small(method=method, groups=groups, cohort=4, rounds=1)
    with recording(config, tmp_path / "run", resume=False) as store:
        place = prepare(config, tmp_path / "run" / "workplace")
        conduct(place, store, OneGrows(place, tmp_path / "devices"), Unwatched())
    first, *others = device_rounds(tmp_path / "run")
    assert {row.outcome for row in others} == {"trained"}
    if policy == "exclude":
        assert first.outcome == "out-of-memory"
        assert (first.measured_bytes or 0) > 48 * KIB
        assert "48.0 KiB" in (first.cause or "")
        assert "largest:" in (first.cause or "")
    else:
        assert (first.outcome, first.policy) == ("trained", policy), first.cause
        assert (first.measured_bytes or 0) <= 48 * KIB


def test_no_policy_tries_a_step_twice(tmp_path: Path) -> None:
    """Two tries may come to the same plan, as where a smaller budget is still more than all of it takes."""
    place = prepare(
        small(method={"name": "asi", "layers": 2, "calibration_images": 16}), tmp_path / "workplace"
    )
    method, train = place.config.method, place.config.train
    enough = Resources(2**30, 16)
    for policy in over_budget.names():
        plans = DevicePlans(place.plans.profile, method.model_copy(update={"over_budget": policy}), train)
        for resources in (enough, Resources(48 * KIB, 16), Resources(48 * KIB, 16, 4)):
            tried = [(a.plan.micro_batch, a.plan.methods) for a in plans.attempts(resources)]
            assert all(step not in tried[:index] for index, step in enumerate(tried)), (policy, resources)
            assert tried[0] == (plans.first(resources).micro_batch, plans.first(resources).methods)
        if policy == "lower-ranks":
            assert [attempt.policy for attempt in plans.attempts(enough)] == [None]


SCHEDULE = [{"round": 2, "budget": "3.5 KiB"}, {"round": 4, "budget": "unlimited"}]
CHANGING = [
    {
        "name": "all",
        "count": 4,
        "budget": "48 KiB",
        "batch_size": 16,
        "micro_batch": 4,
        "schedule": SCHEDULE,
    }
]
WARM = {"name": "asi-published", "layers": 2, "calibration_images": 8}


@pytest.mark.slow  # three whole runs
@pytest.mark.computes
def test_a_schedule_is_planned_ahead_and_followed_also_through_a_resume(tmp_path: Path) -> None:
    config = small(method=WARM, groups=CHANGING, cohort=4, rounds=4)
    run_loop(config, tmp_path / "run")
    rows = device_rounds(tmp_path / "run")
    assert {row.outcome for row in rows} == {"trained"}
    by_round = {n: [row for row in rows if row.round == n] for n in range(1, 5)}
    assert all((row.measured_bytes or 0) <= 48 * KIB for row in by_round[1])
    assert all((row.measured_bytes or 0) <= 3.5 * KIB for row in by_round[2] + by_round[3])
    planned = [by_round[n][0].planned_bytes or 0 for n in range(1, 5)]
    assert planned[0] > planned[1] == planned[2] < planned[3]
    with RunStore.read(tmp_path / "run") as store:
        notes = " ".join(store.notes())
    assert "planned ahead" in notes
    assert "from round 4" in notes
    cut_off = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        stopped_in_the_third_round(config, cut_off)
    run_loop(config, cut_off, resume=True)
    assert records(cut_off) == records(tmp_path / "run")


def stopped_in_the_third_round(config: RunConfig, folder: Path) -> None:
    with recording(config, folder, resume=False) as store:
        place = prepare(config, folder / "workplace")
        conduct(place, store, Stops(place, folder / "devices"), Unwatched())


class Stops(LoopExecutor):
    """Ctrl-C in the third round."""

    def train(self, jobs, tensors, sizes=None):  # type: ignore[no-untyped-def]
        if jobs[0].round == 3:
            raise KeyboardInterrupt
        yield from super().train(jobs, tensors)


def test_a_budget_without_a_plan_is_named_before_the_first_round(tmp_path: Path) -> None:
    groups = [{**GROUPS[1], "name": "all", "count": 6, "schedule": [{"round": 2, "budget": "100 B"}]}]
    run_loop(small(groups=groups), tmp_path / "run")
    with RunStore.read(tmp_path / "run") as store:
        (note,) = [text for text in store.notes() if "planned ahead" in text]
        outcomes = {(row.round, row.outcome) for row in store.device_rounds()}
    assert "no plan from round 2 (budget 100 B is below the smallest plan" in note
    assert outcomes == {(1, "trained"), (2, "excluded")}


def test_what_a_policy_comes_to_is_planned_ahead_too(tmp_path: Path) -> None:
    groups = [{**GROUPS[1], "name": "all", "count": 6, "schedule": [{"round": 2, "budget": "64 KiB"}]}]
    run_loop(small(groups=groups, method={"over_budget": "smaller-micro-batch"}), tmp_path / "run")
    with RunStore.read(tmp_path / "run") as store:
        (note,) = [text for text in store.notes() if "planned ahead" in text]
        rows = list(store.device_rounds(2))
    assert {(row.outcome, row.policy) for row in rows} == {("trained", "smaller-micro-batch")}
    assert note.endswith(f", {format_bytes(rows[0].planned_bytes)} by smaller-micro-batch from round 2")


def test_warm_factors_are_cut_to_a_smaller_plan_and_used(tmp_path: Path) -> None:
    """From other factors a device's round gives other weights: what is carried over is not thrown away."""
    place = prepare(small(method=WARM, groups=CHANGING), tmp_path / "workplace")
    large = Job(1, 0, Resources(48 * KIB, 16, 4), 0.05)
    first = train_locally(place, large, place.reference)
    assert first.factors
    small_job = replace(large, round=2, resources=Resources(3584, 16, 4))
    warm = train_locally(place, small_job, place.reference, first.factors)
    cold = train_locally(place, small_job, place.reference)
    assert warm.stats["ranks"] == cold.stats["ranks"] != first.stats["ranks"]
    assert any(not torch.equal(warm.tensors[n], cold.tensors[n]) for n in warm.tensors)
    for name, factors in warm.factors.items():
        for old, new in zip(first.factors[name], factors, strict=True):
            assert old is None or new is None or new.shape[1] <= old.shape[1]
