"""A run's records as files for other tools, one file a table or view, with the columns of docs/reference/records.md.

A new format is one more registered function: it gets the columns and rows of a table, and writes a file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from fed_asi.errors import RunError
from fed_asi.files import replacing
from fed_asi.results.sql_tables import NOTES, TABLES, columns_of
from fed_asi.results.sql_views import VIEW_COLUMNS
from fed_asi.results.store import RunStore

Row = Sequence[Any]  # text, int, float or None, in the columns' order
Columns = Mapping[str, str]  # name -> "INTEGER", "REAL" or "TEXT"
Write = Callable[[Columns, Iterable[Row], IO[bytes]], None]

FORMATS: dict[str, Write] = {}  # by file name extension


def register(name: str) -> Callable[[Write], Write]:
    """Return a decorator that registers a format under its file name extension."""

    def known(write: Write) -> Write:
        FORMATS[name] = write
        return write

    return known


def tables() -> dict[str, Columns]:
    """Return every table and view of a run's records, with its columns in order."""
    return {**{name: columns_of(name) for name in TABLES}, "notes": NOTES, **VIEW_COLUMNS}


def export(run: str | Path, kind: str, folder: Path) -> list[Path]:
    """Write a run's records to a folder and return the files; all are of one moment, even if the run goes on.

    kind: one of FORMATS. An existing file is replaced once the new one is complete.
    Raises RunError, one line, where there is no run, the folder is not writable, or a package for the format is
    missing.
    """
    write = FORMATS[kind]
    found = []
    with RunStore.read(run) as store, store.at_one_moment():
        for name, columns in tables().items():
            path = folder / f"{name}.{kind}"
            rows = store.each(f"SELECT {', '.join(columns)} FROM {name}")
            with replacing(path) as file:
                write(columns, rows, file)
            found.append(path)
    return found


@register("csv")
def _csv(columns: Columns, rows: Iterable[Row], file: IO[bytes]) -> None:
    """Write CSV: a header, None as an empty cell, and texts quoted where need be."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    text.detach()


PARQUET_ROWS = 65_536  # held in memory at once


@register("parquet")
def _parquet(columns: Columns, rows: Iterable[Row], file: IO[bytes]) -> None:
    """Write Parquet, each column with its type and with nulls; texts are exact. Raises RunError without pyarrow."""
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError as error:
        raise RunError('Parquet needs pyarrow, which is missing: pip install "fed-asi[parquet]"') from error
    types = {"INTEGER": pyarrow.int64(), "REAL": pyarrow.float64(), "TEXT": pyarrow.string()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    with ParquetWriter(file, schema) as writer:
        for some in batches(rows, PARQUET_ROWS):
            by_column = dict(zip(columns, zip(*some, strict=True), strict=True))
            writer.write_table(pyarrow.table(by_column, schema=schema))


def batches(rows: Iterable[Row], size: int) -> Iterable[list[Row]]:
    """Yield rows in lists of at most `size`, none of them empty."""
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held
