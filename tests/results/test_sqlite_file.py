"""A database that one process writes and others read, and its errors in one line."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from fed_asi.errors import RunError
from fed_asi.results.sqlite_file import connect, connect_to_read, plainly


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a file? #1.sqlite"  # characters that mean something in an address
    connection = connect(file)
    with connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    return file


def test_readers_see_what_is_written_and_wait_for_nobody(path):
    writer, reader = connect(path), connect_to_read(path)
    writer.execute("INSERT INTO t VALUES (1)")  # not committed: the writer has the file
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (0,)
    writer.commit()
    assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)
    writer.close()
    reader.close()


def test_readers_cannot_write(path):
    reader = connect_to_read(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("INSERT INTO t VALUES (1)")
    reader.close()


def test_what_is_no_database_is_found_when_it_is_opened(tmp_path):
    (tmp_path / "text").write_text("long enough to look like the first page of something else" * 20)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        connect_to_read(tmp_path / "text")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            sqlite3.OperationalError("database or disk is full"),
            "the disk is full or failing; what was recorded before is kept",
        ),
        (
            sqlite3.OperationalError("disk I/O error"),
            "the disk is full or failing; what was recorded before is kept",
        ),
        (sqlite3.OperationalError("attempt to write a readonly database"), "it is not writable"),
        (sqlite3.OperationalError("unable to open database file"), "it is not writable"),
        (sqlite3.DatabaseError("file is not a database"), "file is not a database"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (OSError("no number"), "no number"),
    ],
)
def test_mistakes_are_one_line_that_names_the_folder(error, said):
    with pytest.raises(RunError) as raised, plainly(Path("runs/x")):
        raise error
    assert str(raised.value) == f"records in runs/x: {said}"


def test_mistakes_of_other_sorts_pass():
    with pytest.raises(ZeroDivisionError), plainly(Path("runs/x")):
        raise ZeroDivisionError


def test_what_is_committed_outlives_a_power_cut(tmp_path):
    connection = connect(tmp_path / "x.sqlite")
    assert connection.execute("PRAGMA synchronous").fetchone() == (
        2,
    )  # FULL: as checkpoints of older rounds go
    connection.close()
