"""Variants at equal spending: what each has reached when the first of all runs ends, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.studies.findings import find
from fed_asi.studies.level import levels, reached_within
from fed_asi.studies.measures import ENERGY, ROUNDS, SIM_SECONDS
from fed_asi.studies.reading import read_run
from fed_asi.studies.tables import Entry, tables
from made_study import add_column, change, run, study

SLOW, QUICK = "CASE WHEN round > 0 THEN 100.0 * round END", "CASE WHEN round > 0 THEN 40.0 * round END"


@pytest.fixture
def made(tmp_path):
    """Two variants of three rounds: one takes 100 s a round, the other 40 s."""
    found = study(tmp_path, {"slow": {0: 0.6, 1: 0.9, 2: 0.75}, "quick": {0: 0.3, 1: 0.6, 2: 0.45}})
    for cell in found.cells:
        add_column(cell.folder, "rounds", "sim_end_seconds", SLOW if cell.variant == "slow" else QUICK)
    return replace(found, baseline="slow")


def test_a_run_had_reached_its_last_evaluation_within_the_limit(tmp_path):
    folder = run(tmp_path / "one", seed=0, final=0.9, budget=None)
    add_column(folder, "rounds", "sim_end_seconds", SLOW)
    one = read_run(folder)
    reached = [reached_within(one, SIM_SECONDS, limit) for limit in (0.0, 99.0, 100.0, 250.0, 300.0, 1e9)]
    assert reached == pytest.approx([0.12, 0.12, 0.3, 0.6, 0.9, 0.9])
    change(folder, "UPDATE rounds SET accuracy = NULL WHERE round = 2")
    assert reached_within(read_run(folder), SIM_SECONDS, 250.0) == pytest.approx(0.3)


def test_all_are_held_at_the_end_of_the_first_that_ends(made):
    level = find(made).levels[SIM_SECONDS]
    assert level.limit == 120.0
    assert level.rows["slow"].values == pytest.approx({0: 0.2, 1: 0.3, 2: 0.25})  # after one round of three
    assert level.rows["quick"].values == pytest.approx({0: 0.3, 1: 0.6, 2: 0.45})
    assert level.rows["quick"].difference.mean == pytest.approx(0.2)


def test_the_table_names_the_limit(made):
    (table,) = [one for one in tables(find(made)) if one.title.startswith("At equal spending")]
    assert table.headings == ("variant", "accuracy at 2 min, %", "against baseline, points")
    slow, quick = table.rows
    assert (slow[0].text, slow[1].text, quick[1].text, quick[2].text) == ("slow", "25.0", "45.0", "+20.0")
    assert slow[2] == Entry("-")


def test_runs_that_end_together_have_no_level(made):
    for cell in made.cells:
        add_column(cell.folder, "rounds", "sim_end_seconds", SLOW)
    assert find(made).levels == {}


def test_what_is_not_spent_as_time_goes_on_has_none(made):
    found = find(made)
    assert levels(found.runs, [ROUNDS, ENERGY]) == {}
    assert SIM_SECONDS in found.levels


def test_a_variant_without_the_clock_is_left_out_of_its_column(made):
    change(made.cells[0].folder, "UPDATE rounds SET sim_end_seconds = NULL")
    assert find(made).levels[SIM_SECONDS].rows["slow"].values.keys() == {1, 2}
