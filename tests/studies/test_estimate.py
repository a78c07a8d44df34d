"""The expected time: from runs of the same variant if there are any, from all runs otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.studies.estimate import Clock, bytes_of, duration


def test_nobody_knows_before_one_has_ended() -> None:
    assert Clock().left_seconds([("a", 1.0)], 2) is None


def test_a_variants_own_runs_tell_and_all_of_them_where_it_has_none() -> None:
    clock = Clock()
    clock.add("quick", 10.0)
    clock.add("quick", 20.0)
    clock.add("slow", 105.0)
    assert clock.left_seconds([("quick", 1.0), ("slow", 0.5)], 1) == pytest.approx(15.0 + 52.5)
    assert clock.left_seconds([("other", 1.0)], 2) == pytest.approx((15.0 + 105.0) / 2 / 2)
    assert clock.left_seconds([], 2) == 0.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (125, "2 min"), (5400, "1 h 30 min"), (360_000, "100 h 0 min")],
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_folders_bytes_are_those_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(100))
    (tmp_path / "c").write_bytes(bytes(11))
    assert bytes_of(tmp_path) == 111
    assert bytes_of(tmp_path / "none") == 0
