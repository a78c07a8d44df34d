"""Curves against the baseline's: differences seed by seed, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed_asi.studies.findings import find
from fed_asi.studies.measures import CURVES
from fed_asi.studies.pairs import paired, pairs


def test_a_band_is_the_paired_difference_at_each_round(made):
    found = find(made)
    base, own = found.runs["plain"], found.runs["better"]
    one = paired(own, base, CURVES[0])
    assert one.spent[-1] == 3
    assert one.values[-1].mean == pytest.approx(0.10)  # +10, +11, +9 points at the end
    last = max(found.rows, key=lambda measure: measure.name == "final_accuracy")
    assert one.values[-1].low == pytest.approx(found.rows[last]["better"].difference.low)
    assert one.values[0].mean == 0  # all begin alike
    halved = {seed: replace(run, curves={"accuracy": {0: 0.1, 3: 0.5}}) for seed, run in own.items()}
    assert paired(halved, base, CURVES[0]).spent == (0, 3)


def test_fewer_than_three_pairs_are_no_band_and_without_a_baseline_there_is_no_picture(made):
    found = find(made)
    assert paired(found.runs["lone"], found.runs["plain"], CURVES[0]) is None
    assert paired(found.runs["gone"], found.runs["plain"], CURVES[0]) is None
    for baseline in (None, "lone", "gone"):
        assert list(pairs(find(replace(made, baseline=baseline)))) == []
