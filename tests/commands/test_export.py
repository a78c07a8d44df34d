"""`fed-asi export` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.commands.console import OK, USER_ERROR
from fed_asi.commands.main import main
from fed_asi.results.export import tables
from made_run import make


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("runs") / "made")


def test_files_lie_in_the_run_and_are_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--to", "csv"]) == OK

    expected = [run / "csv" / f"{name}.csv" for name in tables()]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in expected]
    assert sorted((run / "csv").iterdir()) == sorted(expected)


def test_its_file_names_a_run_too(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run / "run.sqlite"), "--to", "csv", "--out", str(tmp_path / "here")]) == OK

    assert (tmp_path / "here" / "rounds.csv").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["nowhere", "--to", "csv"],
            "fed-asi: no run in nowhere: it has no run.sqlite; fed-asi run FLEET.toml makes one",
        ),
        (["RUN", "--to", "csv", "--out", "FILE"], "fed-asi: cannot write FILE/run.csv: FILE is not a folder"),
    ],
)
def test_mistakes_are_one_line(run: Path, tmp_path: Path, capsys, words: list[str], line: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    named = {"RUN": str(run), "FILE": str(file)}

    assert main(["export", *(named.get(word, word) for word in words)]) == USER_ERROR

    assert capsys.readouterr().err == line.replace("FILE", str(file)) + "\n"
