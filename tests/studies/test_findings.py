"""A study's findings, against the accuracies with which its runs were made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.errors import RunError
from fed_asi.studies.findings import find
from fed_asi.studies.measures import ACCURACY, BYTES_UP, MEASURES, SAVED
from fed_asi.studies.statistics import Verdict, compare, estimate
from made_study import FINALS, change, study


@pytest.fixture(scope="module")
def found(made):
    return find(made)


def test_every_variant_is_there_and_every_gap_is_named(found):
    assert found.variants == tuple(FINALS)
    assert found.seeds == (0, 1, 2)
    assert [(cell.variant, cell.seed, cell.gap) for cell in found.gaps] == [
        ("gone", 0, "killed: out of memory")
    ]
    assert found.rows[ACCURACY]["gone"].estimate is None
    assert found.rows[ACCURACY]["gone"].difference.verdict is Verdict.NONE


def test_rows_are_the_statistics_of_what_the_runs_say(found):
    for name in ("plain", "better", "alike", "lone"):
        row = found.rows[ACCURACY][name]
        assert row.values == pytest.approx(FINALS[name])
        assert row.estimate.mean == pytest.approx(estimate(list(FINALS[name].values())).mean)
    assert found.rows[ACCURACY]["plain"].difference is None
    verdicts = {name: found.rows[ACCURACY][name].difference.verdict for name in ("better", "alike", "lone")}
    assert verdicts == {"better": Verdict.HIGHER, "alike": Verdict.OPEN, "lone": Verdict.FEW}
    by_hand = compare({name: values for name, values in FINALS.items() if name != "gone"}, "plain")
    assert found.rows[ACCURACY]["better"].difference.low == pytest.approx(by_hand["better"].low)
    assert found.rows[ACCURACY]["better"].difference.corrected_p == pytest.approx(2 * by_hand["better"].p)


def test_what_no_run_has_is_not_there(found):
    assert {one.name for one in found.rows} == MEASURES.keys() - {
        "ram_bytes",
        "flash_bytes",
        "sim_seconds",
        "energy_joules",
        "twin_difference",
        "gradient_captured",
        "static_bytes",
    }
    assert found.rows[SAVED]["plain"].difference is None
    assert found.rows[SAVED]["lone"].values == {0: 4 * 65536 - 1000}


def test_costs_of_a_target_name_the_runs_that_never_got_there(found):
    rounds = found.costs[MEASURES["rounds"]]
    assert rounds["plain"].values == {0: None, 1: None, 2: 3}  # 0.77 alone is above 0.75
    assert (rounds["plain"].reached, rounds["plain"].median, rounds["plain"].estimate) == (1, None, None)
    assert rounds["better"].values == {0: 3, 1: 3, 2: 3}
    assert rounds["better"].estimate.mean == rounds["better"].median == 3
    assert rounds["better"].difference is None  # the baseline did not always get there
    assert (rounds["gone"].values, rounds["gone"].median) == ({}, None)
    assert found.costs[BYTES_UP]["better"].values == {0: 3000, 1: 3000, 2: 3000}


def test_the_median_counts_runs_that_never_got_there_as_the_longest(tmp_path):
    made = study(tmp_path, {"a": {0: 0.9, 1: 0.8, 2: 0.3}}, target=0.5, rounds=4)
    cost = find(made).costs[MEASURES["rounds"]]["a"]
    assert (cost.values, cost.median, cost.estimate) == ({0: 3, 1: 3, 2: None}, 3, None)


def test_without_a_target_there_are_no_costs_and_without_a_baseline_no_differences(made):
    found = find(replace(made, baseline=None, target=None))
    assert found.costs == {}
    assert {row.difference for rows in found.rows.values() for row in rows.values()} == {None}


def test_a_study_without_a_finished_run_is_all_gaps(made):
    cells = tuple(replace(cell, gap="not run yet") for cell in made.cells)
    found = find(replace(made, cells=cells))
    assert (found.rows, found.seeds, len(found.gaps)) == ({}, (), len(cells))


def test_a_run_that_cannot_be_read_is_a_gap(tmp_path):
    made = study(tmp_path, {"a": {0: 0.5, 1: 0.6}})
    (made.cells[1].folder / "run.sqlite").write_bytes(b"no database")
    (gap,) = find(made).gaps
    assert (gap.seed, made.cells[1].folder.name in gap.gap) == (1, True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"baseline": "nobody"}, "baseline 'nobody' is none of its variants: ['plain'"),
        ({"twice": True}, "variant 'plain' has seed 0 twice"),
    ],
)
def test_a_study_that_cannot_be_compared_is_an_error(made, change, says):
    if change.pop("twice", False):
        change = {"cells": (*made.cells, made.cells[0])}
    with pytest.raises(RunError) as raised:
        find(replace(made, **change))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_causes_of_gaps_name_no_place_of_this_machine(made):
    cell = replace(made.cells[0], folder=made.cells[0].folder / "runs" / "plain-seed-0")
    said = find(replace(made, cells=(replace(cell, gap=f"no space in {cell.folder}"), *made.cells[1:]))).gaps
    assert said[0].gap == "no space in runs/plain-seed-0"
    assert (
        find(replace(made, cells=(cell, *made.cells[1:])))
        .gaps[0]
        .gap.startswith("no run in runs/plain-seed-0")
    )


def test_pairs_that_share_the_seed_alone_and_mixed_versions_are_said(tmp_path):
    made = study(tmp_path, {"a": {0: 0.5, 1: 0.6}, "b": {0: 0.5, 1: 0.6}}, baseline="a")
    assert find(made).notes == ()
    change(made.cells[2].folder, "UPDATE devices SET num_examples = 7")
    change(made.cells[3].folder, "DELETE FROM device_rounds WHERE partition_id = 0 AND round = 1")
    change(made.cells[3].folder, """UPDATE run SET versions = '{"torch": "2.14.0"}'""")
    assert find(made).notes == (
        "b has shards of other sizes than a (seeds 0): the pairs have only the seed in common",
        "b has other cohorts than a (seeds 1): the pairs have only the seed in common",
        "versions of python differ: 3.11 in 3 runs, none in 1 runs",
        "versions of torch differ: 2.13.0 in 3 runs, 2.14.0 in 1 runs",
        "b, seed 1: round 1: 1 of 3 devices are unaccounted for",
    )
