"""The views, queried as readers query them: in new runs, and in runs older than the views."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fed_asi.results.schema import FILE_NAME
from fed_asi.results.sql_views import VIEWS
from fed_asi.results.store import RunStore
from made_clock import with_clock
from made_run import make
from made_twins import with_groups


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return with_clock(with_groups(make(tmp_path_factory.mktemp("runs") / "clocked")))


def select(folder: Path, query: str) -> list[tuple[object, ...]]:
    """Ask the file itself, without this package."""
    connection = sqlite3.connect(folder / FILE_NAME)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_hours_and_joules_to_an_accuracy(folder: Path) -> None:
    rows = select(folder, "SELECT * FROM accuracy_over_time WHERE group_name IS NULL ORDER BY round")
    of_devices = select(folder, "SELECT round, sum(energy_joules) FROM device_rounds GROUP BY round")
    assert [hours for _, _, _, hours, _ in rows] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [spent for *_, spent in rows][1:] == [
        sum(joules for round, joules in of_devices if round <= last) for last in range(1, 5)
    ]
    (first,) = select(
        folder, "SELECT min(sim_hours) FROM accuracy_over_time WHERE group_name IS NULL AND accuracy > 0.5"
    )
    assert first == (2.0,)
    groups = select(
        folder,
        "SELECT group_name, energy_joules FROM accuracy_over_time WHERE group_name IS NOT NULL AND round = 4",
    )
    assert sum(spent for _, spent in groups) == pytest.approx(rows[-1][-1])


def test_who_took_part(folder: Path) -> None:
    rows = select(folder, "SELECT partition_id, asked, trained, late, sim_seconds FROM took_part")
    assert rows[0] == (0, 4, 0, 0, 0.0)
    assert rows[1] == (1, 4, 4, 0, 4 * 360.0)
    assert rows[7] == (7, 4, 0, 4, 4 * 3600.0)


def test_what_no_row_tells_is_null_and_not_zero(tmp_path: Path) -> None:
    """Device 1 was never there, device 2 has no clock, and the power of 3 is unknown, as is that of its group."""
    folder = with_clock(with_groups(make(tmp_path / "run")))
    changes = {1: "outcome = 'absent', sim_seconds = 0, energy_joules = 0", 2: "sim_seconds = NULL"}
    connection = sqlite3.connect(folder / FILE_NAME)
    with connection:
        for partition_id, change in changes.items():
            connection.execute(f"UPDATE device_rounds SET {change} WHERE partition_id = {partition_id}")
        connection.execute("UPDATE device_rounds SET energy_joules = NULL WHERE partition_id IN (2, 3, 4)")
    connection.close()
    rows = select(folder, "SELECT partition_id, sim_seconds, energy_joules FROM took_part")
    assert rows[0] == (0, 0.0, 0.0)  # it was there, and said at once that it has no plan
    assert rows[1:4] == [(1, None, None), (2, None, None), (3, 4 * 480.0, None)]
    assert rows[5] == (5, 4 * 600.0, 4 * 600.0)
    connection = sqlite3.connect(folder / FILE_NAME)
    with connection:
        connection.execute("UPDATE rounds SET energy_joules = NULL")
        connection.execute("UPDATE device_rounds SET energy_joules = NULL")
    connection.close()
    assert select(folder, "SELECT DISTINCT energy_joules FROM accuracy_over_time") == [(None,)]


def test_runs_from_before_have_them_too(tmp_path: Path) -> None:
    folder = make(tmp_path / "old")
    connection = sqlite3.connect(folder / FILE_NAME)
    for name in VIEWS:
        connection.execute(f"DROP VIEW {name}")
    for table, column in (
        ("rounds", "sim_end_seconds"),
        ("device_rounds", "sim_seconds"),
        ("devices", "device_name"),
    ):
        connection.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
    connection.commit()
    connection.close()
    with RunStore.read(folder) as store:
        assert store.select("SELECT round, sim_hours, energy_joules FROM accuracy_over_time") == [
            (round, None, None) for round in range(5)
        ]
        assert store.select("SELECT sum(asked), sum(trained) FROM took_part") == [(32, 28)]
    with RunStore.open(folder) as store:
        assert store.select("SELECT DISTINCT sim_seconds, energy_joules FROM took_part") == [(None, None)]
    assert select(folder, "SELECT count(*) FROM accuracy_over_time") == [(5,)]
