"""A run's records as files: every table and column on the page of records, the same values, at one moment."""

from __future__ import annotations

import builtins
import csv
import re
import sqlite3
from pathlib import Path

import pyarrow.parquet
import pytest

from fed_asi.errors import RunError
from fed_asi.results import export as exporting
from fed_asi.results.export import FORMATS, batches, export, register, tables
from fed_asi.results.schema import FILE_NAME, RoundRecord
from fed_asi.results.store import RunStore
from made_clock import with_clock
from made_run import make
from made_twins import with_groups

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "records.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = with_clock(with_groups(make(tmp_path_factory.mktemp("runs") / "clocked")))
    with RunStore.open(folder) as store:
        store.note('a "quoted", comma\nand a line')
    return folder


def in_sql(run: Path, table: str) -> list[tuple[object, ...]]:
    """Ask the file itself, without this package."""
    connection = sqlite3.connect(run / FILE_NAME)
    try:
        return connection.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        connection.close()


def test_the_page_names_every_table_and_column() -> None:
    told: dict[str, dict[str, str]] = {}
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            told[line[3:]] = {}
        elif row := re.match(r"\| `(\w+)` \| (\w+) \| .+ \|$", line):
            list(told.values())[-1][row[1]] = row[2]

    assert {name: list(columns.items()) for name, columns in told.items() if columns} == {
        name: list(columns.items()) for name, columns in tables().items()
    }


def test_tables_are_those_of_the_file(run: Path) -> None:
    connection = sqlite3.connect(run / FILE_NAME)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type != 'index'")}
    columns = {
        table: [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")] for table in names
    }
    connection.close()

    assert columns == {name: list(one) for name, one in tables().items()}


def test_csv_has_every_row(run: Path, tmp_path: Path) -> None:
    paths = export(run, "csv", tmp_path / "new")

    assert [path.name for path in paths] == [f"{name}.csv" for name in tables()]
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        assert head == list(tables()[path.stem])
        expected = [["" if one is None else str(one) for one in row] for row in in_sql(run, path.stem)]
        assert rows == expected, path


def test_parquet_has_every_row_and_its_types(run: Path, tmp_path: Path) -> None:
    for path in export(run, "parquet", tmp_path):
        table = pyarrow.parquet.read_table(path)
        kinds = {"INTEGER": "int64", "REAL": "double", "TEXT": "string"}
        assert {
            name: str(kind) for name, kind in zip(table.schema.names, table.schema.types, strict=True)
        } == {name: kinds[kind] for name, kind in tables()[path.stem].items()}
        assert [tuple(row.values()) for row in table.to_pylist()] == in_sql(run, path.stem), path


def test_a_table_without_a_row_has_its_columns(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    export(run, "csv", tmp_path)
    export(run, "parquet", tmp_path)

    assert (tmp_path / "group_rounds.csv").read_text() == ",".join(tables()["group_rounds"]) + "\n"
    assert pyarrow.parquet.read_table(tmp_path / "group_rounds.parquet").num_rows == 0


def test_all_files_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path / "run", finish=False)
    writes = FORMATS["csv"]

    def while_it_goes_on(columns, rows, file) -> None:
        with RunStore.open(run) as store:
            store.add_round(RoundRecord(len(store.rounds()), 0, 0, 0.5, 0.5))
        writes(columns, rows, file)

    monkeypatch.setitem(FORMATS, "csv", while_it_goes_on)
    before = len(in_sql(run, "rounds"))

    export(run, "csv", tmp_path)

    assert len(in_sql(run, "rounds")) == before + len(tables())
    assert len((tmp_path / "rounds.csv").read_text().splitlines()) - 1 == before


def test_a_file_of_before_stays_where_the_new_one_fails(run: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "run.csv").write_text("mine")

    def fail(columns, rows, file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(FORMATS, "csv", fail)

    with pytest.raises(RunError, match=r"cannot write .*run\.csv: No space left on device"):
        export(run, "csv", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.csv"]
    assert (tmp_path / "run.csv").read_text() == "mine"


def test_without_pyarrow_it_says_what_to_install(run: Path, tmp_path: Path, monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *others, **named):
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *others, **named)

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(RunError, match=r'pip install "fed-asi\[parquet\]"'):
        export(run, "parquet", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_format_of_ones_own_is_one_function(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(exporting, "FORMATS", FORMATS.copy())

    @register("count")
    def count(columns, rows, file) -> None:
        file.write(str(len(list(rows))).encode())

    exporting.export(run, "count", tmp_path)

    assert (tmp_path / "devices.count").read_text() == str(len(in_sql(run, "devices")))


def test_rows_come_in_batches() -> None:
    rows = [(number,) for number in range(5)]
    assert list(batches(rows, 2)) == [rows[:2], rows[2:4], rows[4:]]
    assert list(batches([], 2)) == []
    assert list(batches(rows, 5)) == [rows]
