"""The result as a table: what budgets bought, which devices were left out, and what fits a narrow terminal."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from fed_asi.fleets.aggregate import AggregateConfig, UploadConfig
from fed_asi.fleets.config import GroupConfig, RunConfig
from fed_asi.fleets.resources import BudgetChange
from fed_asi.results import table
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_run import make
from made_twins import with_groups, with_twins


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


def test_what_strategy_and_codec_took_is_said_where_a_run_chose_any(summary):
    assert "codec" not in text_of(summary)
    chosen = RunConfig.from_json(summary.run.config).model_copy(
        update={"upload": UploadConfig(codec="int8"), "aggregate": AggregateConfig(strategy="scaffold")}
    )
    devices = [replace(one, strategy_bytes=1024 * one.partition_id) for one in summary.devices]
    rounds = [replace(one, bytes_up=2048, bytes_down=1024) for one in summary.rounds]
    found = replace(
        summary,
        run=replace(summary.run, config=chosen.to_json()),
        devices=tuple(devices),
        rounds=tuple(rounds),
    )
    (line,) = [line for line in table.lines(found) if line.startswith("strategy")]
    assert line == (
        'strategy "scaffold", codec "int8": a device holds up to 7.0 KiB for them besides its step; '
        "10.0 KiB went up, 5.0 KiB down"
    )


def test_a_narrow_terminal_leaves_out_what_one_can_do_without(summary):
    assert table.fitting(table.columns(summary), summary.groups, 140) == table.columns(summary)
    narrow = text_of(summary, width=80)
    assert "Left out here (--wide): planned, micro-batch, papers' count" in " ".join(narrow.split())
    assert max(map(len, narrow.splitlines())) <= 80
    assert "Left out" not in text_of(summary)


def test_what_a_column_means_is_said_below_the_table(summary):
    said = " ".join(text_of(summary, width=80).split())
    for column in table.fitting(table.columns(summary), summary.groups, 80):
        assert f"{column.title}: {column.meaning}" in said or not column.meaning


def test_what_one_can_do_without_most_goes_first(tmp_path):
    found = summary_of(with_groups(with_twins(make(tmp_path / "made"))))
    every = table.columns(found)
    shown = [{c.title for c in table.fitting(every, found.groups, width)} for width in range(200, 60, -1)]
    gone = [column for more, fewer in pairwise(shown) for column in more - fewer]
    assert gone == [
        *(
            "papers' count",
            "micro-batch",
            "captured",
            "planned",
            "shared model",
            "cosine",
            "layers",
            "devices",
        ),
    ]
    for width in (60, 100, 120, 200):
        whole = text_of(found, width).splitlines()
        assert max(map(len, whole)) <= width


def cells(summary: Summary, group: int) -> dict[str, str]:
    return {column.title: column.cell(summary.groups[group]) for column in table.columns(summary)}


def test_twins_and_judged_groups_have_columns_where_there_are_any(summary, tmp_path):
    found = summary_of(with_groups(with_twins(make(tmp_path / "made"))))
    new = [column.title for column in table.columns(found)]
    assert [title for title in new if title not in cells(summary, 1)] == [
        *("captured", "against its twin", "cosine", "shared model"),
    ]
    medium = cells(found, 1)  # devices 1 to 4 lose 2, 3, 1 and 2 points
    assert medium["against its twin"] == "-2.00 ± 1.30"
    assert medium["cosine"] == "0.940"
    assert medium["captured"] == "96.0 %"
    assert medium["shared model"] == "12.5 → 75.0 %"
    tight = cells(found, 0)
    assert tight["against its twin"] == "-1.00 (1)"
    assert (tight["cosine"], tight["captured"]) == ("-", "-")


def test_how_to_read_the_table_is_said_below_it(summary, tmp_path):
    assert table.reading(summary) == [
        "groups have different images, so the table does not show what a budget costs; measure.twins = true does"
    ]
    assert table.reading(summary_of(with_twins(make(tmp_path / "made"))))[0].startswith(
        "against its twin: accuracy of a device minus that of the same without its budget, in points"
    )
    one = (GroupConfig(name="a", count=1, budget=9000),)
    assert table.reading(summary_of(make(tmp_path / "one", groups=one))) == []


def test_a_device_that_was_left_out_has_nothing_but_its_budget(summary):
    tight = cells(summary, 0)
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
