"""The Pareto front, against its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fed_asi.studies.findings import find
from fed_asi.studies.front import front, on_front
from fed_asi.studies.measures import ACCURACY, ENERGY, SAVED

small = st.integers(0, 5).map(float)


@given(st.lists(st.tuples(small, small), max_size=12))
def test_the_front_is_all_that_nothing_beats(drawn):
    points = {f"v{i}": point for i, point in enumerate(drawn)}

    def beats(one, other):
        return one != other and one[0] <= other[0] and one[1] >= other[1]

    found = front(points)
    assert set(found) == {
        name for name, own in points.items() if not any(beats(x, own) for x in points.values())
    }
    assert [points[name] for name in found] == sorted(points[name] for name in found)


def test_a_lone_run_beats_no_variant_of_three_seeds(made):
    found = find(made)
    assert found.rows[ACCURACY]["lone"].estimate.mean > found.rows[ACCURACY]["better"].estimate.mean
    assert on_front(found, SAVED, ACCURACY) == ["plain", "better"]
    assert on_front(found, ENERGY, ACCURACY) == []
