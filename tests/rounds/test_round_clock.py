"""Whom a round asks, and when it ends, by the run's clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fed_asi.errors import RunError
from fed_asi.fleets import fleet
from fed_asi.results.store import RunStore
from fed_asi.rounds.cohort import sample_cohort
from fed_asi.rounds.round_clock import RoundClock
from fed_asi.rounds.run import run_loop
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
    monkeypatch.setattr(found._attendance, "first", lambda _at: float("inf"))
    with pytest.raises(RunError, match="nobody comes any more"):
        found.cohort(1)


def test_without_presence_whom_a_round_asks_is_what_it_was(place: Workplace) -> None:
    found = clock(place, ALWAYS, {})
    for round in range(1, 9):
        assert found.cohort(round) == sample_cohort(1, round, range(6), 3)


def test_a_run_by_night_goes_on_after_a_kill_with_the_same_bits(tmp_path: Path) -> None:
    config = small(groups=groups(NIGHT, {**ALWAYS, "presence": {"kind": "random", "share": 0.5}}), rounds=3)
    run_loop(config, tmp_path / "whole")
    run_loop(config, tmp_path / "cut")
    with RunStore.open(tmp_path / "cut") as store:
        store.forget_after(2)
    (tmp_path / "cut" / "checkpoints" / "round-0003.pt").unlink(missing_ok=True)
    run_loop(config, tmp_path / "cut", resume=True)
    assert records(tmp_path / "whole") == records(tmp_path / "cut")
