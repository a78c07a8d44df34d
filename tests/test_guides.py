"""The tutorial and the how-to guides: what they show is what happens."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

import sessions
from fed_asi.commands.doctor import OF_TESTS, VARIABLES
from made_run import make

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.mark.parametrize(
    "page",
    [
        pytest.param("tutorial/getting_started.md", marks=[pytest.mark.slow, pytest.mark.computes]),
        "howto/budgets_csv.md",
    ],
)
def test_commands_print_what_is_shown(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    text = (DOCS / page).read_text()
    assert sessions.loosened(sessions.played(text, tmp_path)) == sessions.loosened(text)


def test_outputs_are_compared_by_words_and_whole_numbers() -> None:
    one, other = "| 12.5 KiB | 91 % | 3 devices |", "|   7.5 KiB |  9 % | 3 devices |"
    assert sessions.loosened(one) == sessions.loosened(other)
    assert sessions.loosened(one) != sessions.loosened(one.replace("3 devices", "4 devices"))


@pytest.mark.parametrize("page", ["howto/own_layer.md", "howto/gpu.md"])
def test_programs_run(page: str, own_names: None) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), flags=re.M | re.S)
    exec(compile(code, page, "exec"), {"__name__": "shown"})


def test_queries_are_of_the_records_that_are_written(tmp_path: Path) -> None:
    text = (DOCS / "howto" / "records_sql.md").read_text()
    (block,) = re.findall(r"^```sql\n(.*?)^```", text, flags=re.M | re.S)
    queries = [query for query in block.split(";") if query.strip()]
    made = make(tmp_path / "made")
    with closing(sqlite3.connect(made / "run.sqlite")) as records:
        found = [records.execute(query).fetchall() for query in queries]
    assert len(found) == 6
    assert found[0]
    assert found[2]


def test_every_variable_has_a_line() -> None:
    text = (DOCS / "reference" / "environment.md").read_text()
    named = set(re.findall(r"^\| `(FED_ASI_\w+)`", text, flags=re.M))
    assert named == set(VARIABLES) - OF_TESTS
