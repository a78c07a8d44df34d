"""A round on the run's clock, from made-up records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.results import timeline
from fed_asi.results.store import RunStore
from fed_asi.results.timeline import Bar, Timeline, timeline_of
from made_clock import HOUR, with_clock
from made_run import make


def of(folder) -> Timeline | None:
    with RunStore.read(folder) as store:
        return timeline_of(store)


def test_the_last_round_device_by_device(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_clock(make(tmp_path / "made"))
    found = of(folder)
    assert found is not None
    assert (found.round, found.seconds, found.left_out) == (4, HOUR, 0)
    assert [one.partition_id for one in found.bars] == list(range(8))
    assert found.bars[2] == Bar(2, "medium", "trained", 0.0, 60.0, 260.0, 100.0)
    assert found.bars[7].outcome == "late"
    monkeypatch.setattr(timeline, "MOST_BARS", 2)
    longest = of(folder)
    assert longest is not None
    assert ([one.partition_id for one in longest.bars], longest.left_out) == ([6, 7], 6)


def test_who_began_before_the_round_is_shown_from_then(tmp_path) -> None:
    folder = with_clock(make(tmp_path / "made"))
    with RunStore.open(folder) as store:
        last = store.rounds()[-1]
        assert last.sim_start_seconds is not None
        early = replace(next(store.device_rounds(last.round)), began_seconds=last.sim_start_seconds - 90.0)
        store.add_round(last, [early, *list(store.device_rounds(last.round))[1:]])
    found = of(folder)
    assert found is not None
    assert [one.begun for one in found.bars] == [-90.0] + [0.0] * 7


def test_without_a_clock_there_is_none(tmp_path) -> None:
    assert of(make(tmp_path / "made")) is None
