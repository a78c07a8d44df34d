"""Opens an SQLite file that one process writes and others read, with errors worded for people."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fed_asi.errors import RunError


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection in WAL mode, so that readers never wait; what it commits survives a power cut."""
    with closed_on_error(sqlite3.connect(path, timeout=30.0, check_same_thread=False)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection


def connect_to_read(path: Path) -> sqlite3.Connection:
    """Return a read-only connection; a folder one may not write to needs SQLite's "immutable"."""
    try:
        return _connect_with(path, "mode=ro")
    except sqlite3.OperationalError:
        return _connect_with(path, "immutable=1")


def _connect_with(path: Path, option: str) -> sqlite3.Connection:
    made = sqlite3.connect(f"{path.absolute().as_uri()}?{option}", uri=True, timeout=30.0)
    with closed_on_error(made) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        return connection


@contextmanager
def closed_on_error(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Close a connection if the block, which sets it up, fails."""
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


@contextmanager
def plainly(folder: Path) -> Iterator[None]:
    """Turn errors of SQLite and the file system into one line that names the folder."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "disk is full" in text or "disk I/O" in text:
            text = "the disk is full or failing; what was recorded before is kept"
        elif "readonly" in text or "unable to open" in text:
            text = "it is not writable"
        raise RunError(f"records in {folder}: {text}") from error
    except OSError as error:
        raise RunError(f"records in {folder}: {error.strerror or error}") from error
