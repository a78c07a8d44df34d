"""A run's records: one SQLite file that can be read while the run goes on.

Tables: run (one row), notes, devices, rounds, device_rounds, group_rounds. The columns of a row are the fields of the
dataclass of the same name (schema.py); dicts are JSON. A round and everything that belongs to it are written in one
transaction, so a reader or a resumed run never sees half a round. In files older than a column, every row has its
default; files older than a table have no rows in it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from fed_asi.errors import RunError, nearest
from fed_asi.fleets.config import RunConfig
from fed_asi.results.lock import RunLock
from fed_asi.results.schema import (
    FILE_NAME,
    SCHEMA_VERSION,
    DeviceRecord,
    DeviceRoundRecord,
    GroupRoundRecord,
    RoundRecord,
    RunRecord,
    Status,
)
from fed_asi.results.sql_tables import ADDED, NOTES, TABLES, add_columns, cell, create, insert, stand_in
from fed_asi.results.sql_views import make_views
from fed_asi.results.sqlite_file import connect, connect_to_read, plainly

_Record = TypeVar("_Record", RunRecord, DeviceRecord, RoundRecord, DeviceRoundRecord, GroupRoundRecord)


LISTED = 5  # the most runs to name if none was found
WITHIN_A_ROUND = (
    "device_rounds",
    "group_rounds",
)  # tables that are written and removed together with a round


class RunStore:
    """The records in one run's folder; use `create`, `open` to go on writing, or `read`."""

    def __init__(self, folder: Path, connection: sqlite3.Connection, lock: RunLock | None) -> None:
        self.folder = folder
        self._connection = connection
        self._lock = lock

    @classmethod
    def create(cls, folder: str | Path, config: RunConfig, versions: dict[str, str] | None = None) -> Self:
        """Return an empty store in `folder`, which is made; it holds the run's lock until closed.

        Raises RunError where the folder cannot be written or already holds a run.
        """
        folder = Path(folder)
        with plainly(folder), ExitStack() as undo:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / FILE_NAME).exists():
                raise RunError(f"{folder} already holds a run; resume it or choose another name")
            connection, lock = _taken(folder, undo)
            with connection:
                connection.execute("BEGIN")  # all or nothing, also for a process that is killed here
                for table in TABLES:
                    create(connection, table)
                connection.execute(f"CREATE TABLE notes ({', '.join(map(' '.join, NOTES.items()))})")
                make_views(connection)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                insert(connection, "run", [_new_run(config, versions or {})])
            undo.pop_all()
            return cls(folder, connection, lock)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Return the store of an existing run, to go on writing (a resume).

        Raises RunError where there is none, another process writes it, or it is not readable.
        """
        folder = _existing(folder)
        with plainly(folder), ExitStack() as undo:
            connection, lock = _taken(folder, undo)
            _check(connection, folder)
            for table in TABLES:
                add_columns(connection, table, folder / FILE_NAME)
            make_views(connection)
            undo.pop_all()
            return cls(folder, connection, lock)

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Return the store of a run, finished or not, for reading only."""
        folder = _existing(folder)
        with plainly(folder), ExitStack() as undo:
            connection = connect_to_read(folder / FILE_NAME)
            undo.callback(connection.close)
            _check(connection, folder)
            for table in TABLES:
                stand_in(connection, table, folder / FILE_NAME)
            make_views(connection, temporary=True)
            undo.pop_all()
            return cls(folder, connection, None)

    def close(self) -> None:
        """Close the file and release the run's lock."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def add_devices(self, devices: Iterable[DeviceRecord]) -> None:
        """Record the fleet; an earlier record of a device is replaced."""
        with plainly(self.folder), self._connection as connection:
            insert(connection, "devices", devices)

    def add_round(
        self,
        round_record: RoundRecord,
        devices: Sequence[DeviceRoundRecord] = (),
        groups: Sequence[GroupRoundRecord] = (),
    ) -> None:
        """Record a round with its devices and groups, all or nothing; an earlier record of it is replaced."""
        with plainly(self.folder), self._connection as connection:
            for table in WITHIN_A_ROUND:
                connection.execute(f"DELETE FROM {table} WHERE round = ?", (round_record.round,))
            insert(connection, "rounds", [round_record])
            insert(connection, "device_rounds", devices)
            insert(connection, "group_rounds", groups)

    def note(self, text: str) -> None:
        """Record one line for readers of the report, such as where the weights came from."""
        with plainly(self.folder), self._connection as connection:
            connection.execute("INSERT INTO notes VALUES (?, ?)", (_now(), cell("text", text)))

    def set_status(
        self, status: Status, *, cause: str | None = None, weights_sha256: str | None = None
    ) -> None:
        """Record the status of the run; anything but "running" also records the time."""
        ended = None if status == "running" else _now()
        with plainly(self.folder), self._connection as connection:
            connection.execute(
                "UPDATE run SET status = ?, cause = ?, ended_at = ?, "
                "weights_sha256 = coalesce(?, weights_sha256)",
                (status, cell("cause", cause), ended, weights_sha256),
            )

    def run(self) -> RunRecord:
        """Return what the run is and how it stands."""
        return next(self._rows(RunRecord, "run"))

    def config(self) -> RunConfig:
        """Return the settings the run was started with."""
        return RunConfig.from_json(self.run().config)

    def notes(self) -> list[str]:
        """Return the run's notes, oldest first."""
        return [text for (text,) in self.select("SELECT text FROM notes ORDER BY rowid")]

    @property
    def last_round(self) -> int:
        """The last round that is recorded; 0 before the first."""
        ((last,),) = self.select("SELECT coalesce(max(round), 0) FROM rounds")
        return int(last)

    def devices(self) -> list[DeviceRecord]:
        """Return the fleet, by partition_id."""
        return list(self._rows(DeviceRecord, "devices", "ORDER BY partition_id"))

    def rounds(self) -> list[RoundRecord]:
        """Return the rounds so far, in order."""
        return list(self._rows(RoundRecord, "rounds", "ORDER BY round"))

    def device_rounds(self, round: int | None = None) -> Iterator[DeviceRoundRecord]:
        """Yield what each asked device did, by round and partition_id; of one round or of all."""
        which = "" if round is None else "WHERE round = ?"
        order = f"{which} ORDER BY round, partition_id"
        yield from self._rows(DeviceRoundRecord, "device_rounds", order, () if round is None else (round,))

    def group_rounds(self) -> list[GroupRoundRecord]:
        """Return how each group's devices fare with the shared model, by round and group."""
        return list(self._rows(GroupRoundRecord, "group_rounds", "ORDER BY round, group_name"))

    def select(self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of an SQL query. values: for its placeholders, by position or by name."""
        with plainly(self.folder):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """Let everything that the block reads be of one moment, even if another process writes."""
        with plainly(self.folder):
            self._connection.execute("BEGIN")
            self._connection.execute("SELECT count(*) FROM run").fetchone()  # the first read sets the moment
        try:
            yield
        finally:
            self._connection.rollback()

    def each(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of an SQL query, one at a time."""
        with plainly(self.folder):
            yield from self._connection.execute(query)

    def forget_after(self, round: int) -> None:
        """Remove the records of all later rounds, which will be repeated."""
        with plainly(self.folder), self._connection as connection:
            for table in ("rounds", *WITHIN_A_ROUND):
                connection.execute(f"DELETE FROM {table} WHERE round > ?", (round,))

    def missing(self) -> list[str]:
        """Return one line for each round that did not happen and each device unaccounted for.

        If no device trained at all, the first line says so: such a run has the weights it began with.
        """
        config = self.config()
        query = (
            "SELECT rounds.round, rounds.asked, count(device_rounds.partition_id) FROM rounds "
            "LEFT JOIN device_rounds USING (round) WHERE rounds.round > 0 GROUP BY rounds.round"
        )
        found = {round: (asked, got) for round, asked, got in self.select(query)}
        lost = [round for round in range(1, config.rounds + 1) if round not in found]
        lines = list(self._untrained())
        lines += [f"{len(lost)} of {config.rounds} rounds did not happen"] if lost else []
        for round, (asked, got) in sorted(found.items()):
            if got < asked:
                lines.append(f"round {round}: {asked - got} of {asked} devices are unaccounted for")
        return lines

    def _untrained(self) -> Iterator[str]:
        ((asked, trained),) = self.select("SELECT total(asked), total(trained) FROM rounds")
        if asked and not trained:
            yield f"no device ever trained, of the {asked:.0f} times one was asked: the model is unchanged"

    def exit_code(self) -> int:
        """Return 0 when the run finished, no round and no device is missing, and some device trained; else 1."""
        return 0 if self.run().status == "finished" and not self.missing() else 1

    def _rows(
        self, record: type[_Record], table: str, rest: str = "", values: Sequence[Any] = ()
    ) -> Iterator[_Record]:
        decode = [field.type.startswith("dict") for field in fields(record)]
        names = ", ".join(field.name for field in fields(record))
        with plainly(self.folder):
            for row in self._connection.execute(f"SELECT {names} FROM {table} {rest}", values):
                cells = (
                    json.loads(one) if is_json else one for one, is_json in zip(row, decode, strict=True)
                )
                yield record(*cells)


def _taken(folder: Path, undo: ExitStack) -> tuple[sqlite3.Connection, RunLock]:
    """Return a run's file and lock, both released by `undo`. Raises RunError where another process has them."""
    lock = RunLock.take(folder)
    undo.callback(lock.release)
    connection = connect(folder / FILE_NAME)
    undo.callback(connection.close)
    return connection, lock


def _new_run(config: RunConfig, versions: dict[str, str]) -> RunRecord:
    compute = config.compute
    return RunRecord(
        config.name,
        "running",
        config.to_json(),
        versions,
        config.seed,
        compute.threads,
        compute.backend,
        _now(),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _there(folder: Path) -> str:
    """Return which runs are in a folder or beside it, or how to make one."""
    for home in (folder, folder.parent):
        names = sorted(str(path.parent) for path in home.glob(f"*/{FILE_NAME}"))
        if names:
            return nearest(str(folder), names[:LISTED])
    return "fed-asi run FLEET.toml makes one"


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.name == FILE_NAME:
        folder = folder.parent
    if not (folder / FILE_NAME).is_file():
        raise RunError(f"no run in {folder}: it has no {FILE_NAME}; {_there(folder)}")
    return folder


def is_begun(folder: str | Path) -> bool:
    """Return whether a folder has a run's records, be they damaged; a process killed early leaves a file without."""
    path = Path(folder) / FILE_NAME
    if not path.is_file():
        return False
    try:
        with closing(connect_to_read(path)) as connection:
            (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        return True
    return bool(tables)


def _check(connection: sqlite3.Connection, folder: Path) -> None:
    """Raise RunError where a file does not hold a run, or holds one of another version."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables >= {*TABLES, "notes"} - ADDED:
        raise RunError(
            f"{folder / FILE_NAME} holds no run: it stopped before its first line, or is another file"
        )
    if not connection.execute("SELECT count(*) FROM run").fetchone()[0]:
        raise RunError(f"{folder / FILE_NAME} holds no run: its first line is gone; start again")
    if version != SCHEMA_VERSION:
        raise RunError(f"{folder / FILE_NAME} has version {version}, this fed-asi reads {SCHEMA_VERSION}")
