"""Layouts: no overlaps, aligned, never below the bound, and compared with the optimum on small cases."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_asi.memory.arena.lifetimes import Lifetime
from fed_asi.memory.arena.offsets import Fitting, aligned, lower_bound, offsets, top

FAST = settings(max_examples=40, deadline=None, derandomize=True)


def place(size: int, first: int, last: int) -> Lifetime:
    return Lifetime("", size, first, last, (0,))


@st.composite
def places(draw: st.DrawFn, most: int) -> list[Lifetime]:
    found = []
    for _ in range(draw(st.integers(1, most))):
        first = draw(st.integers(0, 8))
        found.append(place(draw(st.integers(1, 200)), first, first + draw(st.integers(0, 5))))
    return found


def least(found: list[Lifetime], alignment: int) -> int:
    """The least memory of all layouts: some order of first fits has it."""
    fitting = Fitting(found, alignment)
    return min(fitting.top(fitting.fit(order)) for order in permutations(range(len(found))))


@FAST
@given(places(40), st.sampled_from([1, 4, 16, 64]))
def test_a_layout_is_a_layout(found: list[Lifetime], alignment: int) -> None:
    starts = offsets(found, alignment)
    assert all(start >= 0 and start % alignment == 0 for start in starts)
    for (one, a), (other, b) in combinations(zip(found, starts, strict=True), 2):
        if one.first <= other.last and other.first <= one.last:
            assert a + one.bytes <= b or b + other.bytes <= a
    assert top(found, starts, alignment) >= lower_bound(found, alignment)[0]


@FAST
@given(places(6), st.sampled_from([1, 16]))
def test_small_cases_are_exact(found: list[Lifetime], alignment: int) -> None:
    assert top(found, offsets(found, alignment), alignment) == least(found, alignment)


@FAST
@given(places(30))
def test_the_search_never_makes_it_worse(found: list[Lifetime]) -> None:
    fitting = Fitting(found)
    assert top(found, offsets(found)) <= fitting.top(fitting.fit(fitting.largest_first()))
    assert offsets(found) == offsets(found)


def test_the_bound_by_hand() -> None:
    found = [place(100, 0, 1), place(50, 1, 2), place(120, 2, 2)]
    assert lower_bound(found, 1) == (170, 2)
    assert lower_bound(found, 16) == (64 + 128, 2)
    assert lower_bound([]) == (0, 0)
    assert offsets([]) == []
    assert top([], []) == 0


def test_where_the_largest_first_is_not_the_least_the_search_finds_it() -> None:
    sizes = [(64, 0, 3), (48, 2, 5), (64, 3, 3), (64, 0, 0), (16, 5, 5), (32, 0, 2)]
    found = [place(*one) for one in sizes]
    fitting = Fitting(found, 16)
    assert fitting.top(fitting.fit(fitting.largest_first())) == 208
    assert top(found, offsets(found, 16), 16) == least(found, 16) == lower_bound(found, 16)[0] == 176


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 16), (16, 16), (17, 32)])
def test_sizes_are_rounded_up(size: int, expected: int) -> None:
    assert aligned(size, 16) == expected
