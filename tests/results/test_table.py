"""The result as a table: what was bought, who was left out, and what fits a narrow terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fed_asi.fleets.config import GroupConfig
from fed_asi.fleets.resources import BudgetChange
from fed_asi.results import table
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_run import make


def summary_of(folder) -> Summary:
    with RunStore.read(folder) as store:
        return summarise(store)


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return summary_of(make(tmp_path_factory.mktemp("runs") / "made"))


def text_of(summary: Summary, width: int = 140) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table.table(summary, width))
    return console.file.getvalue()


def test_table_says_what_was_bought_and_who_was_left_out(summary):
    text = text_of(summary)
    for expected in (
        "64.0 KiB",
        "unlimited",
        "0 of 4, 4 excluded",
        "accuracy 12.0 % → 72.5 %, worst class 36.",
    ):
        assert expected in text
    assert "4 × excluded, as in: budget 2.0 KiB is below the smallest plan, 4.0 KiB" in text
    assert "note: the server trained the network on 300 public images" in text


def test_a_narrow_terminal_leaves_out_what_one_can_do_without(summary):
    wide, narrow = text_of(summary), text_of(summary, width=80)
    for column in table.OPTIONAL:
        assert column in wide
        assert column not in narrow
    assert max(map(len, narrow.splitlines())) <= 80


def test_every_column_has_a_cell(summary):
    assert [len(table.cells(group)) for group in summary.groups] == [len(table.COLUMNS)] * 3
    tight = dict(zip(table.COLUMNS, table.cells(summary.groups[0]), strict=True))
    assert tight["budget"] == "2.0 KiB"
    assert [
        tight[name] for name in ("planned", "measured", "papers' count", "micro-batch", "local accuracy")
    ] == ["-"] * 5


def test_a_schedule_shows_the_span_of_its_budgets(tmp_path):
    group = GroupConfig(name="a", count=1, budget=9000, schedule=(BudgetChange(round=3, budget=5000),))
    assert "4.9 KiB to 8.8 KiB" in text_of(summary_of(make(tmp_path / "x", groups=(group,))))


@pytest.mark.parametrize(
    ("budgets", "text"),
    [((), "-"), ((2048,), "2.0 KiB"), ((1024, None), "1.0 KiB to unlimited"), ((None,), "unlimited")],
)
def test_spans_of_budgets(budgets, text):
    assert table.span_bytes(budgets) == text


def test_a_run_that_has_not_begun_says_so(tmp_path):
    said = table.lines(summary_of(make(tmp_path / "x", rounds=3, finish=False, begun=False)))
    assert "no evaluation yet" in said
    assert "3 of 3 rounds did not happen" in said
    assert said[-1].startswith("the run is stopped half-way; go on with: fed-asi run --resume")
