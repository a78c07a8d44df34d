"""The study's answer: it says what the statistics support, and no more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.studies.findings import find
from fed_asi.studies.sentences import _times, answer
from fed_asi.studies.statistics import Verdict
from made_study import study


def test_the_answer_names_what_is_higher_what_is_open_and_what_is_missing(made):
    assert answer(find(made)) == [
        "Compared with “plain” (73.0 %, 64.0 to 82.0, 3 seeds), accuracy is higher with “better” (+10.0 points, +7.5 "
        "to +12.5); cannot be told apart with “alike” (−0.3 points, −5.5 to +4.8).",
        "Judged by the means, no variant beats these in both accuracy and saved bytes: “plain”, “better”.",
        "75 % took the fewest rounds with “better”: 3 in the median.",
        "Of 4 variants, 2 reached 75 % with only some of their seeds.",
        "Too few seeds to conclude anything about “lone”.",
        "Variants have different seeds. Only the differences from the baseline compare the same seeds.",
        "1 of 11 runs is missing.",
    ]


def test_a_study_of_costs_answers_them_first(made):
    assert answer(find(replace(made, kind="cost")))[0].startswith("75 % took the fewest rounds")
    assert "No run reached 99 %." in answer(find(replace(made, target=0.99)))


def test_without_a_baseline_nothing_is_tested(made):
    said = answer(find(replace(made, baseline=None)))
    assert said[0] == "The highest mean accuracy is that of “lone” (90.0 %, 1 seed)."
    assert said[1] == "No baseline is named, so no difference is tested."
    said = answer(find(replace(made, baseline="gone")))
    assert "The baseline “gone” has no finished run, so no difference is tested." in said


def test_what_is_cheaper_and_not_told_apart_may_still_be_worse(tmp_path):
    finals = {"plain": {0: 0.70, 1: 0.72, 2: 0.77}, "small": {0: 0.72, 1: 0.70, 2: 0.76}}
    made = study(tmp_path, finals, baseline="plain", budgets={"plain": 2**20, "small": 2**14})
    assert (
        "“small” needs 15.0 KiB of saved bytes instead of 1023.0 KiB, 68.1 times less; its accuracy may still be "
        "up to 5.5 points lower." in answer(find(made))
    )


def test_what_needs_hardly_less_is_not_called_cheaper(tmp_path):
    finals = {"plain": {0: 0.70, 1: 0.72, 2: 0.77}, "small": {0: 0.72, 1: 0.70, 2: 0.76}}
    made = study(tmp_path, finals, baseline="plain", budgets={"plain": 2**20, "small": 2**20 - 2**10})
    assert not any("times less" in said for said in answer(find(made)))


def test_few_seeds_conclude_nothing(tmp_path):
    said = answer(find(study(tmp_path, {"a": {0: 0.2, 1: 0.2}, "b": {0: 0.8, 1: 0.9}}, baseline="a")))
    assert said[0] == "There are too few seeds to compare anything with “a” (20.0 %, 2 seeds)."
    assert (
        "With 2 seeds there is no interval, and no difference is called higher or lower: that needs 3 seeds."
        in said
    )


def test_many_variants_are_counted(tmp_path):
    finals = {"plain": {0: 0.5, 1: 0.52, 2: 0.53}}
    finals |= {f"v{i}": {0: 0.1 * i, 1: 0.1 * i + 0.021, 2: 0.1 * i + 0.029} for i in range(4)}
    said = answer(find(study(tmp_path, finals, baseline="plain")))
    assert "lower with 4 variants, from “v0” (−50.0 points" in said[0]


def test_a_study_without_a_run_says_so(made):
    cells = tuple(replace(cell, gap="not begun") for cell in made.cells)
    (said,) = answer(find(replace(made, cells=cells)))
    assert said.startswith("No run of this study is finished")


@pytest.mark.parametrize("verdict", [one for one in Verdict if one not in (Verdict.HIGHER, Verdict.LOWER)])
def test_no_other_verdict_is_called_higher_or_lower(made, verdict):
    found = find(made)
    rows = {
        name: replace(row, difference=row.difference and replace(row.difference, verdict=verdict))
        for name, row in next(iter(found.rows.values())).items()
    }
    first = next(iter(found.rows))
    said = answer(replace(found, rows={**found.rows, first: rows}))[0]
    assert "higher with" not in said
    assert "lower with" not in said


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(2.0712, "2.07"), (1.5, "1.5"), (99.96, "100"), (2236.1, "2,240"), (1.2345e6, "1,230,000")],
)
def test_a_ratio_is_three_digits_without_an_exponent(ratio, said):
    assert _times(ratio) == said
