"""A record's dataclass as an SQL table; a run's store, also of older files, is tested in test_store.py."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from fed_asi.errors import RunError
from fed_asi.results import sql_tables
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord

FILE = Path("run.sqlite")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:")
    yield made
    made.close()


@pytest.mark.parametrize("table", sql_tables.TABLES)
def test_a_table_has_a_column_a_field_in_their_order(connection, table):
    sql_tables.create(connection, table)
    columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    assert columns == [field.name for field in fields(sql_tables.TABLES[table][0])]


def test_numbers_are_numbers_and_what_else_there_is_text(connection):
    sql_tables.create(connection, "device_rounds")
    kinds = {name: kind for _, name, kind, *_ in connection.execute("PRAGMA table_info(device_rounds)")}
    assert (kinds["measured_bytes"], kinds["accuracy_after"], kinds["outcome"], kinds["ranks"]) == (
        *("INTEGER", "REAL", "TEXT", "TEXT"),
    )


def test_a_record_with_the_key_of_another_replaces_it(connection):
    sql_tables.create(connection, "rounds")
    for accuracy in (0.5, 0.75):
        sql_tables.insert(connection, "rounds", [RoundRecord(1, 2, 2, None, accuracy)])
    assert connection.execute("SELECT round, accuracy FROM rounds").fetchall() == [(1, 0.75)]


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ({"b": [1], "a": [2, 3]}, '{"a": [2, 3], "b": [1]}'),
        ("half a \ud800 pair", "half a ? pair"),
        (None, None),
        ((1 << 63) - 1, (1 << 63) - 1),
        (-(1 << 63), -(1 << 63)),
    ],
)
def test_values_as_sqlite_holds_them(value, held):
    assert sql_tables.cell("x", value) == held


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 1 << 900])
def test_numbers_that_sqlite_cannot_hold_are_refused_by_name(value):
    with pytest.raises(RunError, match=r"bytes_up is a number of .* bits, and the records hold 64"):
        sql_tables.cell("bytes_up", value)


@pytest.fixture
def older(connection) -> sqlite3.Connection:
    """A table of before ranks and transient_bytes, with one row."""
    sql_tables.create(connection, "device_rounds")
    sql_tables.insert(connection, "device_rounds", [DeviceRoundRecord(1, 7, "trained")])
    for column in ("ranks", "transient_bytes"):
        connection.execute(f"ALTER TABLE device_rounds DROP COLUMN {column}")
    connection.commit()
    return connection


@pytest.mark.parametrize("complete", [sql_tables.add_columns, sql_tables.stand_in])
def test_columns_that_an_older_file_lacks_have_their_defaults(older, complete):
    complete(older, "device_rounds", FILE)
    query = "SELECT partition_id, outcome, ranks, transient_bytes FROM device_rounds"
    assert older.execute(query).fetchall() == [(7, "trained", "{}", None)]


def test_a_file_that_is_only_read_stays_as_it_is(older):
    before = older.execute("SELECT sql FROM main.sqlite_master").fetchall()
    sql_tables.stand_in(older, "device_rounds", FILE)
    assert older.execute("SELECT sql FROM main.sqlite_master").fetchall() == before


@pytest.mark.parametrize("complete", [sql_tables.add_columns, sql_tables.stand_in])
def test_a_column_without_a_default_cannot_be_lacking(connection, complete):
    connection.execute("CREATE TABLE rounds (round INTEGER)")
    with pytest.raises(RunError, match=r"run\.sqlite is not a complete run: it lacks the column asked"):
        complete(connection, "rounds", FILE)
