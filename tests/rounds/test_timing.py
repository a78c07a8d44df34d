"""The clock in a run: columns that add up, equal on both back ends, and empty for devices without a clock."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fed_asi.devices.exchange import Exchange
from fed_asi.devices.job import Job
from fed_asi.devices.work import described
from fed_asi.fleets import fleet
from fed_asi.fleets.clock import PARTS, seconds_of
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.loop import Rounds
from fed_asi.rounds.run import run_loop
from fed_asi.rounds.timing import Timing
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import job, small

TIGHT = {"name": "tight", "count": 3, "budget": "160 KiB", "batch_size": 16}
ROOMY = {"name": "roomy", "count": 3, "budget": "unlimited", "batch_size": 16}
FLEET = [{**TIGHT, "device": "stm32f746"}, {**ROOMY, "device": {"preset": "raspberry-pi-5", "spread": 0.3}}]


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))


def rows(folder: Path) -> tuple[list[Any], list[Any]]:
    with RunStore.read(folder) as store:
        return store.rounds(), list(store.device_rounds())


def test_a_run_on_its_clock(tmp_path: Path) -> None:
    run_loop(small(groups=FLEET, cohort=6), tmp_path / "run")
    rounds, devices = rows(tmp_path / "run")
    for row in devices:
        seconds = [getattr(row, f"{part}_seconds") for part in PARTS]
        assert min(seconds) > 0
        assert row.sim_seconds == pytest.approx(sum(seconds))
        assert row.energy_joules == pytest.approx(sum(getattr(row, f"{part}_joules") for part in PARTS))
    assert (rounds[0].sim_start_seconds, rounds[0].sim_end_seconds) == (0.0, 0.0)
    for before, now in itertools.pairwise(rounds):
        slowest = max(row.sim_seconds for row in devices if row.round == now.round)
        assert now.sim_start_seconds == before.sim_end_seconds
        assert now.sim_end_seconds == now.sim_start_seconds + slowest
        joules = sum(row.energy_joules for row in devices if row.round == now.round)
        assert now.energy_joules == pytest.approx(joules)
    with RunStore.read(tmp_path / "run") as store:
        assert [one.device_name for one in store.devices()] == ["stm32f746"] * 3 + ["raspberry-pi-5"] * 3


def test_the_clock_changes_no_weight_and_devices_without_one_have_none(tmp_path: Path) -> None:
    run_loop(small(rounds=1, groups=[{**TIGHT, "device": "stm32f746"}, ROOMY], cohort=6), tmp_path / "one")
    run_loop(small(rounds=1, cohort=6), tmp_path / "none")
    clocked, plain = (rows(tmp_path / name) for name in ("one", "none"))
    assert [row.sim_seconds is None for row in clocked[1]] == [False] * 3 + [True] * 3
    assert clocked[0][1].weights_sha256 == plain[0][1].weights_sha256
    assert {(row.sim_start_seconds, row.sim_end_seconds, row.energy_joules) for row in plain[0]} == {
        (None,) * 3
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    config = small(groups=FLEET, cohort=6, rounds=1, method={"over_budget": "smaller-micro-batch"})
    return prepare(config, tmp_path_factory.mktemp("place") / "workplace")


def test_what_is_told_ahead_is_what_is_told_after(place: Workplace, tmp_path: Path) -> None:
    with RunStore.create(tmp_path / "run", place.config) as store:
        rounds = Rounds(place, store, LoopExecutor(place, tmp_path / "devices"), Unwatched())
        timing = Timing.of(place, rounds.fleet)
        assert timing is not None
        jobs = {job.partition_id: job for job in rounds.jobs(1)}
        ahead = {one: timing.ahead(job) for one, job in jobs.items()}
        rounds.run()
        for row in store.device_rounds(1):
            found = ahead[row.partition_id]
            assert found is not None
            assert {key: getattr(row, key) for key in found.columns()} == found.columns()


def test_plans_that_were_refused_cost_their_first_step(place: Workplace) -> None:
    timing = Timing.of(place, fleet.build(place.config))
    assert timing is not None
    asked = job_of(place, 0)
    attempts = list(place.plans.attempts(asked.resources))
    assert len(attempts) > 1
    said = {"outcome": "trained", "policy": attempts[1].policy, **described(attempts[1].plan)}
    first = {"outcome": "trained", "policy": attempts[0].policy, **described(attempts[0].plan)}
    second = timing.after(asked, said)
    assert timing.after(asked, first) == timing.ahead(asked)
    lost = timing.after(asked, {"outcome": "out-of-memory"})
    alone = timing.tasks.task(attempts[1].plan, asked.resources, timing.images(0))
    refused = timing.tasks.first_step(attempts[0].plan, asked.resources, timing.images(0))
    assert second is not None
    assert lost is not None
    hardware = timing.hardware(0)
    assert hardware is not None
    assert second.step_seconds == pytest.approx(
        seconds_of(alone.step, hardware) + seconds_of(refused.step, hardware)
    )
    assert lost.upload_seconds == hardware.latency_seconds
    every = [timing.tasks.first_step(one.plan, asked.resources, timing.images(0)).step for one in attempts]
    assert lost.step_seconds == pytest.approx(sum(seconds_of(one, hardware) for one in every))
    assert timing.after(asked, {"outcome": "excluded"}).sim_seconds == 0.0  # type: ignore[union-attr]
    assert timing.after(asked, {"outcome": "killed"}) == timing.ahead(asked)


def job_of(place: Workplace, partition_id: int) -> Job:
    return job(fleet.build(place.config)[partition_id].resources, partition_id=partition_id)


def test_fewer_steps_take_less_time(place: Workplace) -> None:
    timing = Timing.of(place, fleet.build(place.config))
    assert timing is not None
    largest = max(range(6), key=lambda one: timing.images(one).train)
    asked = job_of(place, largest)
    whole, less = timing.ahead(asked), timing.ahead(replace(asked, steps=1))
    assert whole is not None
    assert less is not None
    assert less.sim_seconds < whole.sim_seconds
    assert less.upload_seconds == whole.upload_seconds


def test_a_fleet_without_clocks_has_no_timing(place: Workplace) -> None:
    assert Timing.of(place, fleet.build(small())) is None


def test_what_nobody_counts_is_noted(place: Workplace) -> None:
    timing = Timing.of(place, fleet.build(place.config))
    assert timing is not None
    assert timing.notes() == []
    trunk = replace(timing.tasks.trunk, uncounted=("attention.a", "attention.b"))
    tail = replace(timing.tasks.tail, uncounted=("c", "d"))
    short = replace(timing, tasks=replace(timing.tasks, trunk=trunk, tail=tail))
    assert short.notes() == [
        "the clock does not count the products of attention.a, attention.b, c and 1 more"
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"upload": {"codec": "int8"}},
        {"aggregate": {"strategy": "scaffold"}, "upload": {"codec": "top-k"}},
    ],
    ids=str,
)
def test_the_bytes_of_both_ways_are_those_that_are_sent(
    place: Workplace, tmp_path: Path, changes: dict[str, Any]
) -> None:
    own = replace(place, config=small(groups=FLEET, cohort=6, rounds=1, **changes))
    timing, exchange = Timing.of(own, fleet.build(own.config)), Exchange.of(own.config)
    assert timing is not None
    asked, weights = job_of(own, 3), sum(tensor.nbytes for tensor in own.reference.values())
    (reply,) = LoopExecutor(own, tmp_path).train([asked], own.reference, exchange.sizes(own.reference))
    up = sum(tensor.nbytes for tensor in reply.tensors.values())
    assert timing.tasks.up_bytes(own.plans.first(asked.resources)) == up
    assert timing.tasks.down_bytes == weights
    timing.sends({**own.reference, **{f"beside..{name}": one for name, one in own.reference.items()}})
    assert timing.tasks.down_bytes == 2 * weights
