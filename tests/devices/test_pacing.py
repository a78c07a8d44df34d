"""Plans of a run with limits on time: what the clock then says about their rounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fed_asi.devices.calibration import plans_for
from fed_asi.devices.tasks import Images
from fed_asi.errors import ConfigError, SlowPlanError
from fed_asi.fleets import fleet
from fed_asi.fleets.clock import Spent
from fed_asi.results.store import RunStore
from fed_asi.rounds.pace_check import check_pace
from fed_asi.rounds.run import run_loop
from fed_asi.rounds.timing import Timing
from fed_asi.units import format_bytes
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import job, small

BOARD = {"device": "stm32f746"}


def groups(*told: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": f"g{i}", "count": 3, "budget": "unlimited", "batch_size": 16, **one}
        for i, one in enumerate(told)
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        method = {"name": "planner"}
        made = small(groups=groups(BOARD, BOARD), method=method)
        return prepare(made, tmp_path_factory.mktemp("paced") / "workplace")


def asked(place: Workplace, *told: dict[str, Any], **changes: Any) -> Workplace:
    """The same workplace in a run of other wishes."""
    method = {"name": "planner", **changes.pop("method", {})}
    return replace(place, config=small(groups=groups(*told), method=method, **changes))


def ahead(place: Workplace, partition_id: int) -> Spent:
    device = fleet.build(place.config)[partition_id]
    timing = Timing.of(place, fleet.build(place.config))
    assert timing is not None
    found = timing.ahead(job(partition_id=partition_id, resources=device.resources))
    assert found is not None
    return found


def test_a_round_is_within_what_it_may_take(place: Workplace) -> None:
    free = [ahead(place, one) for one in range(6)]
    for share in (0.999, 0.97):
        limits = [{**BOARD, "max_seconds": free[1].sim_seconds * share}, {**BOARD, "max_joules": 1e9}]
        paced = asked(place, *limits)
        assert ahead(paced, 1).sim_seconds <= free[1].sim_seconds * share
        assert plans_for(paced, 4).first(fleet.build(paced.config)[4].resources).value > 0
    joules = (free[4].energy_joules or 0.0) * 0.97
    paced = asked(place, BOARD, {**BOARD, "max_joules": joules})
    assert (ahead(paced, 4).energy_joules or 0.0) <= joules
    assert ahead(paced, 1) == free[1]


def test_who_asks_for_nothing_has_the_plans_it_had(place: Workplace) -> None:
    for paced in (place, asked(place, BOARD, {**BOARD, "max_seconds": 1e6})):
        assert plans_for(paced, 0) is paced.plans
        assert plans_for(paced, 0) is plans_for(paced, 1)
    assert plans_for(paced, 4) is not paced.plans
    assert plans_for(paced, 4) is plans_for(paced, 4)


def test_the_duty_of_a_device_is_its_task(place: Workplace) -> None:
    timing = Timing.of(place, fleet.build(place.config))
    assert timing is not None
    resources = fleet.build(place.config)[2].resources
    plan = plans_for(place, 2).first(resources)
    tasks = timing.tasks
    for images in (Images(37, 9), Images(5, 0)):
        duty = tasks.duty(resources, images)
        found = duty.task(tasks.trunk, tasks.tail, plan.methods, plan.micro_batch)
        assert found == tasks.task(plan, resources, images)


def test_the_most_for_each_joule_is_another_plan(place: Workplace) -> None:
    free = asked(place, BOARD, BOARD)
    frugal = asked(place, BOARD, BOARD, method={"objective": "captured-per-joule"})
    resources = fleet.build(place.config)[0].resources
    rates = []
    for one in (free, frugal):
        plan = plans_for(one, 0).first(resources)
        worth = plan.value if one is free else plan.value * (ahead(one, 0).energy_joules or 0.0)
        rates.append(worth / (ahead(one, 0).energy_joules or 1.0))
    assert rates[1] >= rates[0] * (1 - 1e-9)


def test_nobody_with_a_plan_is_said_before_the_first_round(place: Workplace) -> None:
    hopeless = asked(place, {**BOARD, "max_seconds": 0.01}, {**BOARD, "max_joules": 1e-3})
    with pytest.raises(ConfigError) as raised:
        check_pace(hopeless, fleet.build(hopeless.config))
    first, second = raised.value.problems
    assert first.startswith("g0: device")
    assert "max_seconds 0.01 is below the plan that takes least" in first
    assert "max_joules 0.001" in second
    some = asked(place, {**BOARD, "max_seconds": 0.01}, BOARD)
    (note,) = check_pace(some, fleet.build(some.config))
    assert "g0: device" in note
    assert check_pace(place, fleet.build(place.config)) == []
    with pytest.raises(SlowPlanError, match="Most of it is the"):
        plans_for(some, 0).first(fleet.build(some.config)[0].resources)


@pytest.mark.slow
@pytest.mark.computes
def test_a_run_plans_ahead_and_trains_within_the_time(tmp_path: Path, place: Workplace) -> None:
    free = ahead(place, 0).sim_seconds
    told = {**BOARD, "max_seconds": free * 0.97, "schedule": [{"round": 2, "budget": "8 KiB"}]}
    run_loop(small(groups=groups(told, BOARD), method={"name": "planner"}, cohort=6), tmp_path / "run")
    with RunStore.read(tmp_path / "run") as store:
        rows = [row for row in store.device_rounds() if row.partition_id == 0]
        (note,) = [text for text in store.notes() if "planned ahead" in text]
    assert [row.outcome for row in rows] == ["trained"] * 2
    assert all(0.0 < (row.sim_seconds or 0.0) <= free * 0.97 for row in rows)
    first, second = (format_bytes(row.planned_bytes) for row in rows)
    assert f"{first} from round 1, {second} from round 2" in note
