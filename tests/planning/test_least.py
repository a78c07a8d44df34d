"""The cheapest choice within several limits, against exhaustive search."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fed_asi.planning.least import Layers, Rows, bound, least


def all_choices(layers: Layers, goal: list[float], upper: list[float]) -> list[tuple[float, tuple[int, ...]]]:
    """Every choice within the limits, with what it costs."""
    found = []
    for picks in itertools.product(*(range(rows.shape[1]) for rows in layers)):
        sums = sum(rows[:, i] for rows, i in zip(layers, picks, strict=True))
        if all(one <= most for one, most in zip(sums, upper, strict=True)):
            found.append((float(np.dot(goal, sums)), picks))
    return found


def drawn(seed: int) -> Layers:
    """Forms of bytes, lost value and seconds; more bytes are worth more, and seconds are as they come."""
    rng = np.random.default_rng(seed)
    layers: list[Rows] = []
    for _ in range(int(rng.integers(1, 5))):
        count = int(rng.integers(1, 7))
        sizes = np.sort(rng.integers(0, 60, count)).astype(float)
        lost = -np.sort(rng.lognormal(0, 1.5, count)) + rng.normal(0, 0.05, count)
        layers.append(np.array([sizes, lost, rng.lognormal(-6, 1, count)]))
    return layers


@pytest.mark.few(6)
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("goal", [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 3.0]])
def test_the_choice_is_the_best_of_all(seed: int, goal: list[float]) -> None:
    layers = drawn(seed)
    middle = [float(sum(np.quantile(rows[r], 0.5) for rows in layers)) for r in range(3)]
    middle[0] = float(np.floor(middle[0]))
    for upper in ([middle[0], np.inf, np.inf], [middle[0], np.inf, middle[2]], middle):
        every = all_choices(layers, goal, upper)
        found = least(layers, goal, upper)
        if not every:
            assert found is None
            continue
        assert found is not None
        sums = sum(rows[:, i] for rows, i in zip(layers, found, strict=True))
        assert float(np.dot(goal, sums)) == pytest.approx(min(every)[0], rel=1e-7, abs=1e-9)
        assert (sums <= np.array(upper) + 1e-9 * np.abs(middle)).all()
        assert bound(layers, goal, upper) <= min(every)[0] + 1e-9


def test_no_byte_is_taken_by_rounding() -> None:
    """A gigabyte and one byte are told apart, where a solver's tolerance would not."""
    big = float(2**30)
    first = np.array([[big + 1, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    layers = [first, np.array([[big, 0.0], [-0.9, 0.0], [0.0, 0.0]])]
    assert least(layers, [0, 1, 0], [2 * big + 1, np.inf, np.inf]) == (0, 0)
    assert least(layers, [0, 1, 0], [2 * big, np.inf, np.inf]) == (0, 1)
    assert least(layers, [0, 1, 0], [big, np.inf, np.inf]) == (1, 0)


def test_nothing_to_choose_is_the_empty_choice() -> None:
    assert least([], [0, 1, 0], [0.0, np.inf, np.inf]) == ()
    assert least([], [0, 1, 0], [-1.0, np.inf, np.inf]) is None
    assert bound([], [0, 1, 0], [-1.0, np.inf, np.inf]) == np.inf
