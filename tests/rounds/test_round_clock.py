"""Which devices a round asks, and when it ends, by the run's clock."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply
from fed_asi.errors import ConfigError, RunError
from fed_asi.fleets import fleet
from fed_asi.fleets.cohort import sample_cohort
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.results.summary import summarise
from fed_asi.results.table import lines
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.loop import Rounds
from fed_asi.rounds.round_clock import RoundClock
from fed_asi.rounds.run import recording, run_loop
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import records, small

HOUR = 3600.0


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))


def groups(*told: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": f"g{i}", "count": 3, "budget": "unlimited", "batch_size": 16, **one}
        for i, one in enumerate(told)
    ]


NIGHT = {"device": "stm32f746", "presence": {"kind": "daily", "from_hour": 22.0, "until_hour": 4.0}}
ALWAYS = {"device": "raspberry-pi-5"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        return prepare(small(groups=groups(NIGHT, ALWAYS)), tmp_path_factory.mktemp("place") / "workplace")


def clock(place: Workplace, *told: dict[str, Any], **changes: Any) -> RoundClock:
    config = small(groups=groups(*told), **changes)
    return RoundClock(replace(place, config=config), fleet.build(config))


def test_the_cohort_is_drawn_among_those_who_are_there(place: Workplace) -> None:
    found = clock(place, NIGHT, ALWAYS, cohort=3)
    found.now = 12 * HOUR
    assert found.cohort(1) == [3, 4, 5]
    found.now = 23 * HOUR
    assert found.cohort(1) == sample_cohort(1, 1, range(6), 3)
    assert found.now == 23 * HOUR


def test_a_round_waits_until_somebody_is_there(place: Workplace) -> None:
    found = clock(place, NIGHT, cohort=2)
    found.now = 12 * HOUR
    assert len(found.cohort(1)) == 2
    assert found.now == 22 * HOUR


def test_fewer_than_asked_for_are_asked(place: Workplace) -> None:
    found = clock(place, NIGHT, ALWAYS, cohort=5)
    found.now = 12 * HOUR
    assert found.cohort(1) == [3, 4, 5]


def test_a_fleet_that_has_gone_ends_the_run_by_name(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = clock(place, NIGHT)
    found.now = 12 * HOUR
    monkeypatch.setattr(found._attendance, "first", lambda _at: float("inf"))
    with pytest.raises(RunError, match="none will come"):
        found.cohort(1)


def test_without_presence_whom_a_round_asks_is_what_it_was(place: Workplace) -> None:
    found = clock(place, ALWAYS, {})
    for round in range(1, 9):
        assert found.cohort(round) == sample_cohort(1, round, range(6), 3)


@pytest.mark.slow
@pytest.mark.computes
def test_a_run_by_night_goes_on_after_a_kill_with_the_same_bits(tmp_path: Path) -> None:
    config = small(groups=groups(NIGHT, {**ALWAYS, "presence": {"kind": "random", "share": 0.5}}), rounds=3)
    run_loop(config, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    with RunStore.open(tmp_path / "cut") as store:
        store.forget_after(2)
    (tmp_path / "cut" / "checkpoints" / "round-0003.pt").unlink(missing_ok=True)
    run_loop(config, tmp_path / "cut", resume=True)
    assert records(tmp_path / "whole") == records(tmp_path / "cut")


class Noting(LoopExecutor):
    """Notes what is asked of devices."""

    asked: list[Job]

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: Mapping[str, int] | None = None
    ) -> Iterator[Reply]:
        self.asked = [*getattr(self, "asked", []), *jobs]
        yield from super().train(jobs, tensors, sizes)


def test_the_first_who_computes_checks_its_step_whoever_is_late(place: Workplace, tmp_path: Path) -> None:
    """Devices 0 to 2 are asleep, so the first to compute is 3."""
    asleep = {"device": "stm32f746", "presence": {"kind": "daily", "from_hour": 9.0, "until_hour": 17.0}}
    clock = {"deadline_seconds": 100.0, "among": "all"}
    config = small(groups=groups(asleep, ALWAYS), cohort=6, rounds=1, clock=clock)
    with RunStore.create(tmp_path / "run", config) as store:
        own = replace(place, config=config)
        executor = Noting(own, tmp_path / "devices")
        Rounds(own, store, executor, Unwatched()).run()
    assert {job.partition_id: job.check for job in executor.asked} == {3: True, 4: False, 5: False}


def test_a_run_goes_on_with_the_trace_it_began_with_alone(tmp_path: Path) -> None:
    trace = tmp_path / "a.csv"
    trace.write_text("x,0,100\n")
    told = {"presence": {"kind": "trace", "trace": str(trace)}, **ALWAYS}
    with recording(small(groups=groups(told)), tmp_path / "run", resume=False):
        pass
    with recording(small(groups=groups(told)), tmp_path / "run", resume=True):
        pass
    trace.write_text("x,0,100\ny,50,60\n")
    with (
        pytest.raises(RunError, match="was begun with other devices"),
        recording(small(groups=groups(told)), tmp_path / "run", resume=True),
    ):
        pass


MIXED = groups({"device": "raspberry-pi-5"}, {"device": {"preset": "stm32f746", "spread": 0.3}})


def ended(folder: Path) -> tuple[list[Any], list[Any]]:
    with RunStore.read(folder) as store:
        assert store.exit_code() == 0
        return store.rounds()[1:], list(store.device_rounds())


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds in which nothing is decided."""
    folder = tmp_path_factory.mktemp("free") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        run_loop(small(groups=MIXED, cohort=6, rounds=2), folder)
    return folder


@pytest.fixture(scope="module")
def taken(free: Path) -> dict[int, float]:
    """What each device's round takes then, in seconds."""
    return {row.partition_id: row.sim_seconds for row in ended(free)[1]}


def test_a_deadline_leaves_out_who_is_late_and_ends_the_round(
    tmp_path: Path, taken: dict[int, float], free: Path
) -> None:
    deadline = sorted(taken.values())[3] + 1e-3
    run_loop(small(groups=MIXED, cohort=6, rounds=2, clock={"deadline_seconds": deadline}), tmp_path / "run")
    rounds, rows = ended(tmp_path / "run")
    for row in rows:
        late = taken[row.partition_id] > deadline
        assert row.outcome == ("late" if late else "trained")
        assert row.sim_seconds == pytest.approx(min(taken[row.partition_id], deadline))
        assert ("the deadline is" in (row.cause or "")) == late
        assert (row.host_seconds is None) == late  # nothing was computed for nobody
        assert (row.bytes_up == 0) == late
    down = {(row.round, row.partition_id): row.bytes_down for row in ended(free)[1]}
    assert {(row.round, row.partition_id): row.bytes_down for row in rows}.keys() == down.keys()
    assert all(
        row.bytes_down in set(down.values()) for row in rows
    )  # all had the model, whoever was late too
    assert [record.trained for record in rounds] == [4, 4]
    assert rounds[1].sim_end_seconds == pytest.approx(2 * deadline)


def test_a_run_says_its_totals(free: Path) -> None:
    rounds, rows = ended(free)
    with RunStore.read(free) as store:
        found = summarise(store)
    assert found.sim_seconds == rounds[-1].sim_end_seconds
    assert found.energy_joules == pytest.approx(sum(row.energy_joules for row in rows))
    assert any(
        line.startswith("on the run's clock: ") and line.endswith(" J of all devices")
        for line in lines(found)
    )


def test_of_more_that_are_asked_the_first_count(tmp_path: Path, taken: dict[int, float]) -> None:
    run_loop(small(groups=MIXED, cohort=3, rounds=1, clock={"ask": 6}), tmp_path / "run")
    (record,), rows = ended(tmp_path / "run")
    first = sorted(taken, key=lambda one: taken[one])[:3]
    assert {row.partition_id for row in rows if row.outcome == "trained"} == set(first)
    assert (record.asked, record.trained) == (6, 3)
    assert record.sim_end_seconds == taken[first[-1]]
    assert {row.outcome for row in rows if row.partition_id not in first} == {"late"}
    assert max(row.sim_seconds for row in rows) == pytest.approx(record.sim_end_seconds)


def test_who_fails_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    """The quickest device has no plan: it says so at once, and does not count."""
    own = [{"partition_id": 0, "budget": 16}]
    run_loop(small(groups=MIXED, cohort=3, rounds=1, clock={"ask": 6}, devices=own), tmp_path / "run")
    (record,), rows = ended(tmp_path / "run")
    assert rows[0].outcome == "excluded"
    assert rows[0].sim_seconds == 0.0
    assert record.trained == 3


def test_work_is_cut_to_what_fits_and_weighs_what_was_done(tmp_path: Path) -> None:
    free = small(groups=MIXED, cohort=6, rounds=1, train={"epochs": 3})
    run_loop(free, tmp_path / "free")
    whole = {row.partition_id: row for row in ended(tmp_path / "free")[1]}
    deadline = 0.6 * max(row.sim_seconds for row in whole.values())
    cut = {"deadline_seconds": deadline, "fit": True}
    run_loop(free.model_copy(update={"clock": free.clock.model_copy(update=cut)}), tmp_path / "run")
    _, rows = ended(tmp_path / "run")
    less = [row for row in rows if row.outcome == "trained" and row.steps < whole[row.partition_id].steps]
    assert less
    for row in rows:
        assert row.sim_seconds <= deadline + 1e-9
        if row.outcome == "trained":
            full = whole[row.partition_id]
            assert row.num_examples <= full.num_examples
            assert row.num_examples >= full.num_examples * row.steps // full.steps - 16
            if row not in less:
                assert (row.sim_seconds, row.num_examples) == (full.sim_seconds, full.num_examples)


def test_a_battery_ends_what_it_cannot_pay_for(tmp_path: Path) -> None:
    phone = {"preset": "stm32f746", "battery_joules": 1.0, "charge_watts": 0.0}
    run_loop(
        small(groups=groups({"device": "raspberry-pi-5"}, {"device": phone}), cohort=6, rounds=4),
        tmp_path / "run",
    )
    rounds, rows = ended(tmp_path / "run")
    spent: dict[int, float] = {}
    for row in rows:
        spent[row.partition_id] = spent.get(row.partition_id, 0.0) + row.energy_joules
    assert all(spent.get(one, 0.0) <= 1.0 + 1e-9 for one in (3, 4, 5))
    left = [row for row in rows if row.outcome in {"left", "absent"}]
    assert left
    assert all("its battery was empty after" in row.cause for row in left)
    assert rounds[-1].asked == 3  # and is not asked again


def test_the_server_may_not_know_who_is_there(tmp_path: Path) -> None:
    told = groups(
        {"device": "raspberry-pi-5"},
        {"device": "raspberry-pi-5", "presence": {"kind": "daily", "from_hour": 9.0, "until_hour": 17.0}},
    )
    run_loop(
        small(groups=told, cohort=6, rounds=1, clock={"deadline_seconds": 100.0, "among": "all"}),
        tmp_path / "run",
    )
    (record,), rows = ended(tmp_path / "run")
    assert [row.outcome for row in rows] == ["trained"] * 3 + ["absent"] * 3
    assert record.sim_end_seconds == 100.0


def test_a_deadline_that_nobody_can_meet_is_said_before_the_first_round(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no device can meet 0.001 s; the fastest, device \d of 'g0', needs"
    ):
        run_loop(small(groups=MIXED, cohort=6, clock={"deadline_seconds": 1e-3}), tmp_path / "run")
    with RunStore.read(tmp_path / "run") as store:
        assert store.rounds() == []


BATTERY = {"preset": "raspberry-pi-5", "spread": 0.5, "battery_joules": 4.0, "charge_watts": 0.2}
MCU = {"device": {"preset": "stm32f746", "spread": 0.3}, "presence": {"kind": "random", "share": 0.7}}
DECIDED: dict[str, Any] = {
    "groups": groups({"device": BATTERY}, MCU),
    "cohort": 2,
    "rounds": 5,
    "clock": {"ask": 4, "deadline_seconds": 2.0, "fit": True},
    "aggregate": {"strategy": "scaffold"},
    "upload": {"codec": "top-k", "share": 0.2},
}


@pytest.mark.slow
@pytest.mark.computes
def test_what_the_clock_decides_goes_on_after_a_kill_with_the_same_bits(tmp_path: Path) -> None:
    run_loop(small(**DECIDED), tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    with RunStore.open(tmp_path / "cut") as store:
        store.forget_after(4)
    run_loop(small(**DECIDED), tmp_path / "cut", resume=True)
    assert records(tmp_path / "whole") == records(tmp_path / "cut")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")  # Flower's own imports warn
def test_what_the_clock_decides_is_the_same_on_flower(tmp_path: Path) -> None:
    from fed_asi.flower.simulation import run_flower

    run_loop(small(**DECIDED), tmp_path / "loop")
    run_flower(small(**DECIDED, compute={"backend": "flower"}), tmp_path / "flower")
    assert records(tmp_path / "loop") == records(tmp_path / "flower")
