"""The numbers behind a run's figures."""

from __future__ import annotations

import pytest

from fed_asi.results import figure_tables
from fed_asi.results.estimate import Estimate
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_clock import with_clock
from made_run import make
from made_twins import with_twins


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Summary:
    with RunStore.read(with_clock(with_twins(make(tmp_path_factory.mktemp("runs") / "made")))) as store:
        return summarise(store)


def test_rounds_of_one_run_and_of_several(made):
    one = figure_tables.rounds_table([made])
    assert one.headings == ("round", "accuracy", "worst class", "devices that trained")
    assert one.rows[0] == ("0", "12.0 %", "0.0 %", "0 of 0")
    assert one.rows[-1][:3] == ("4", "72.5 %", "36.3 %")
    several = figure_tables.rounds_table([made, made])
    assert several.headings[0] == "run"
    assert len(several.rows) == 10


def test_devices_have_their_bytes_and_what_they_lose_to_their_twins(made):
    found = figure_tables.devices_table(made)
    assert found.headings[-2:] == ("against its twin", "cosine")
    assert found.rows[0][:6] == ("0", "tight", "2.0 KiB", "-", "-", "0 of 4")
    assert found.rows[1][2:5] == ("64.0 KiB", "63.0 KiB", "62.9 KiB")


def test_runs_clocks_and_rounds_have_theirs(made):
    assert figure_tables.runs_table([made]).rows == (("made", "390.1 KiB", "72.5 %"),)
    assert figure_tables.clock_table([made]).rows[-1][1] == "4 hours"
    assert figure_tables.clock_table([made, made]).headings == ("run", "simulated time", "accuracy")
    assert made.timeline is not None
    assert figure_tables.round_table(made.timeline).rows[2] == (
        "2",
        "medium",
        "trained",
        "0",
        "60",
        "260",
        "100",
    )


def test_long_tables_say_how_many_rows_they_leave_out(made, monkeypatch):
    monkeypatch.setattr(figure_tables, "MOST_ROWS", 3)
    found = figure_tables.devices_table(made)
    assert (len(found.rows), found.more) == (3, 5)


@pytest.mark.parametrize(
    ("found", "said"),
    [(None, "-"), (Estimate(-0.01, None, 2), "-1.0"), (Estimate(0.02, 0.005, 9), "+2.0 ± 0.5")],
)
def test_a_mean_is_said_with_its_interval(found, said):
    assert figure_tables.mean_of(found) == said
