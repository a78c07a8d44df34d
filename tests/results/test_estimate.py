"""A mean and its interval, compared with scipy's own statistics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fed_asi.results.estimate import Estimate, estimate


@given(st.lists(st.floats(-1.0, 1.0).map(lambda value: round(value, 3)), min_size=3, max_size=30))
def test_the_interval_is_students(values: list[float]) -> None:
    found = estimate(values)
    assert found is not None
    assert found.half is not None
    mean, error = float(stats.tmean(values)), float(stats.sem(values))
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.half == pytest.approx(float(stats.t.ppf(0.975, len(values) - 1)) * error, abs=1e-12)


def test_of_few_there_is_no_interval_and_of_none_no_mean() -> None:
    assert estimate([]) is None
    assert estimate([None, None]) is None
    assert estimate([None, 0.5]) == Estimate(0.5, None, 1)
    assert estimate([0.25, 0.75]) == Estimate(0.5, None, 2)
    assert estimate([1.0, 1.0, None, 1.0]) == Estimate(1.0, 0.0, 3)
