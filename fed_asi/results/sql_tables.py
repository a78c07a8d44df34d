"""A record's dataclass as an SQL table: created, filled, and completed if an older file lacks a column."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from fed_asi.errors import RunError
from fed_asi.results.schema import (
    DeviceRecord,
    DeviceRoundRecord,
    GroupRoundRecord,
    RoundRecord,
    RunRecord,
)

NOTES = {"at": "TEXT", "text": "TEXT"}  # a table without a record: lines for readers of the report


TABLES: dict[str, tuple[type, str]] = {
    "run": (RunRecord, ""),
    "devices": (DeviceRecord, "PRIMARY KEY (partition_id)"),
    "rounds": (RoundRecord, "PRIMARY KEY (round)"),
    "device_rounds": (DeviceRoundRecord, "PRIMARY KEY (round, partition_id)"),
    "group_rounds": (GroupRoundRecord, "PRIMARY KEY (round, group_name)"),
}


ADDED = frozenset({"group_rounds"})  # added within version 1: files without them are complete


_SQL_TYPES = {"int": "INTEGER", "float": "REAL"}


_SQL_LIMIT = 1 << 63  # SQLite's integers are at least minus this, and below it


def create(connection: sqlite3.Connection, table: str) -> None:
    """Make an empty table."""
    _, key = TABLES[table]
    columns = [f"{name} {kind}" for name, kind in columns_of(table).items()]
    connection.execute(f"CREATE TABLE {table} ({', '.join([*columns, key] if key else columns)})")


def insert(connection: sqlite3.Connection, table: str, records: Iterable[Any]) -> None:
    """Write records; a record with an existing key replaces that row."""
    names = [one.name for one in fields(TABLES[table][0])]
    marks = ", ".join("?" for _ in names)
    rows = ([cell(name, getattr(record, name)) for name in names] for record in records)
    connection.executemany(f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)


def cell(name: str, value: Any) -> Any:
    """Return a value as SQLite holds it. Raises RunError for an integer that it cannot hold."""
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # a lone surrogate cannot be encoded
    if isinstance(value, int) and not -_SQL_LIMIT <= value < _SQL_LIMIT:
        raise RunError(f"{name} is a number of {value.bit_length()} bits, and the records hold 64")
    return value


def add_columns(connection: sqlite3.Connection, table: str, file: Path) -> None:
    """Add missing columns with their defaults to a table of an older file, so that writing can go on.

    A table that is missing is created. Raises RunError where a missing column has no default.
    """
    if _is_older_than(connection, table):
        create(connection, table)
    for column in _lacking(connection, table):
        added = f"{column.name} {_sql_type(column)} DEFAULT {_default(column, file)}"
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {added}")


def stand_in(connection: sqlite3.Connection, table: str, file: Path) -> None:
    """Shadow a table of an older file by a view that has the missing columns; the file does not change.

    A missing table gets an empty view. Raises RunError where a missing column has no default.
    """
    if _is_older_than(connection, table):
        columns = ", ".join(f"NULL AS {one.name}" for one in fields(TABLES[table][0]))
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT {columns} WHERE 0")
        return
    lacking = _lacking(connection, table)
    if lacking:
        made = [f"{_default(column, file)} AS {column.name}" for column in lacking]
        columns = ", ".join([*_there(connection, table), *made])
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT {columns} FROM main.{table}")


def _is_older_than(connection: sqlite3.Connection, table: str) -> bool:
    """Return whether the file is from before this table was added."""
    return table in ADDED and not _there(connection, table)


def columns_of(table: str) -> dict[str, str]:
    """Return a table's columns in order, with the types of SQL."""
    return {one.name: _sql_type(one) for one in fields(TABLES[table][0])}


def _sql_type(column: Field[Any]) -> str:
    return _SQL_TYPES.get(str(column.type).split(" |")[0], "TEXT")


def _there(connection: sqlite3.Connection, table: str) -> list[str]:
    return [name for _, name, *_ in connection.execute(f"PRAGMA main.table_info({table})")]


def _lacking(connection: sqlite3.Connection, table: str) -> list[Field[Any]]:
    there = set(_there(connection, table))
    return [column for column in fields(TABLES[table][0]) if column.name not in there]


def _default(column: Field[Any], file: Path) -> str:
    """Return a column's default as SQL. Raises RunError for a column that has none."""
    default = column.default if column.default_factory is MISSING else column.default_factory()
    if default is MISSING:
        raise RunError(
            f"{file} is not a complete run: it lacks the column {column.name}, which every run has"
        )
    if default is None:
        return "NULL"
    held = cell(column.name, default)
    return str(held) if isinstance(held, (int, float)) else "'" + str(held).replace("'", "''") + "'"
