"""The exact choice of one candidate per layer under a byte budget: a multiple-choice knapsack.

Published rank selection tries all 6^N combinations. Here a Pareto dynamic programme runs over the layers. It keeps
only partial choices that are not dominated and whose linear-programming bound still beats the best choice known.
That is exact and takes milliseconds for 42 layers of 64 candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.int64]


Values = npt.NDArray[np.float64]


UNLIMITED_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class Choices:
    """One layer's candidates: `bytes` (n,) int64 and `values` (n,) float64; larger values are better."""

    bytes: Bytes
    values: Values


@dataclass(frozen=True, slots=True)
class Solution:
    """One index per layer, and the sums of their bytes and values."""

    chosen: tuple[int, ...]
    bytes: int
    value: float


@dataclass(frozen=True, slots=True)
class _Hull:
    """One layer reduced to its Pareto candidates (`kept`, by ascending bytes) and the steps of their convex hull."""

    kept: npt.NDArray[np.int64]
    bytes: Bytes
    values: Values
    step_bytes: Bytes
    step_values: Values


def pareto(sizes: Bytes, values: Values) -> npt.NDArray[np.int64]:
    """Return the indices, by ascending bytes, of the points that no other point beats in both bytes and value."""
    order = np.lexsort((-values, sizes))
    ranked = values[order]
    best_before = np.concatenate(([-np.inf], np.maximum.accumulate(ranked)[:-1]))
    return np.asarray(order[ranked > best_before], dtype=np.int64)


def _hull(choices: Choices) -> _Hull:
    kept = pareto(choices.bytes, choices.values)
    sizes, values = choices.bytes[kept], choices.values[kept]
    corner = [0]
    for index in range(1, len(kept)):
        while len(corner) > 1 and _below(sizes, values, corner[-2], corner[-1], index):
            corner.pop()
        corner.append(index)
    return _Hull(kept, sizes, values, np.diff(sizes[corner]), np.diff(values[corner]))


def _below(sizes: Bytes, values: Values, left: int, middle: int, right: int) -> bool:
    """Return whether `middle` lies on or under the line from `left` to `right`."""
    rise = (values[middle] - values[left]) * float(sizes[right] - sizes[left])
    return bool(rise <= (values[right] - values[left]) * float(sizes[middle] - sizes[left]))


@dataclass(frozen=True, slots=True)
class _Bound:
    """The best fractional value of a set of layers as a piecewise linear, concave function of bytes."""

    bytes: Values
    values: Values

    def at(self, budget: Values) -> Values:
        """Return the bound for each budget (n,); minus infinity below the smallest choice."""
        bound = np.interp(budget, self.bytes, self.values)
        return np.where(budget < self.bytes[0], -np.inf, bound)


def _bound(hulls: Sequence[_Hull]) -> _Bound:
    sizes = np.concatenate([hull.step_bytes for hull in hulls] or [np.zeros(0, dtype=np.int64)])
    gains = np.concatenate([hull.step_values for hull in hulls] or [np.zeros(0)])
    order = np.argsort(-gains / sizes, kind="stable")
    start_bytes = float(sum(int(hull.bytes[0]) for hull in hulls))
    start_value = float(sum(float(hull.values[0]) for hull in hulls))
    return _Bound(
        start_bytes + np.concatenate(([0.0], np.cumsum(sizes[order], dtype=np.float64))),
        start_value + np.concatenate(([0.0], np.cumsum(gains[order]))),
    )


def smallest_bytes(layers: Sequence[Choices]) -> int:
    """Return the fewest bytes any choice can have."""
    return sum(int(layer.bytes.min()) for layer in layers)


class Knapsack:
    """A list of layers, prepared to be solved for any budget."""

    def __init__(self, layers: Sequence[Choices]) -> None:
        self._hulls = [_hull(layer) for layer in layers]
        self._whole = _bound(self._hulls)

    def tail(self, first: int) -> Knapsack:
        """Return the knapsack of the layers from `first` on, without reducing them again."""
        part = Knapsack(())
        part._hulls = self._hulls[first:]
        part._whole = _bound(part._hulls)
        return part

    def bound(self, budget_bytes: int) -> float:
        """Return a value that no choice within the budget exceeds; minus infinity when none fits."""
        return float(self._whole.at(np.array([float(budget_bytes)]))[0])

    def solve(self, budget_bytes: int, beat: float = -np.inf) -> Solution | None:
        """Return the choice of highest value within the budget; None if none fits or none beats `beat`.

        Of choices with equal value the one with the fewest bytes is taken, so the answer does not depend on the order
        of candidates.
        """
        if self.bound(budget_bytes) <= beat:
            return None
        order = sorted(range(len(self._hulls)), key=lambda i: -float(np.ptp(self._hulls[i].values)))
        hulls = [self._hulls[i] for i in order]
        floor = max(beat, self._greedy(budget_bytes))
        picks, total = _sweep(hulls, budget_bytes, floor - 1e-9 * max(1.0, abs(floor)))
        if picks is None or total[1] <= beat:
            return None
        chosen = [0] * len(hulls)
        for position, hull, pick in zip(order, hulls, picks, strict=True):
            chosen[position] = int(hull.kept[pick])
        return Solution(tuple(chosen), int(total[0]), float(total[1]))

    def _greedy(self, budget_bytes: int) -> float:
        """Return the value of a feasible choice: hull steps that fit, taken by falling slope."""
        spent = sum(int(hull.bytes[0]) for hull in self._hulls)
        value = sum(float(hull.values[0]) for hull in self._hulls)
        if spent > budget_bytes:
            return -np.inf
        steps = sorted(
            ((gain / size, -i, -j, int(size), float(gain)))
            for i, hull in enumerate(self._hulls)
            for j, (size, gain) in enumerate(zip(hull.step_bytes, hull.step_values, strict=True))
        )
        closed: set[int] = set()
        for _, layer, _, size, gain in reversed(steps):
            if layer in closed or spent + size > budget_bytes:
                closed.add(layer)
                continue
            spent, value = spent + size, value + gain
        return value


def _sweep(
    hulls: Sequence[_Hull], budget_bytes: int, floor: float
) -> tuple[list[int] | None, tuple[int, float]]:
    """Return the pick per layer and its (bytes, value), exploring only what can still reach `floor`."""
    rests = [_bound(hulls[i + 1 :]) for i in range(len(hulls))]
    sizes, values = np.zeros(1, dtype=np.int64), np.zeros(1)
    trail: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for hull, rest in zip(hulls, rests, strict=True):
        grown_bytes = (sizes[:, None] + hull.bytes[None, :]).ravel()
        grown_values = (values[:, None] + hull.values[None, :]).ravel()
        reach = grown_values + rest.at((budget_bytes - grown_bytes).astype(np.float64))
        alive = np.flatnonzero((reach >= floor) & (reach > -np.inf))
        if not len(alive):
            return None, (0, -np.inf)
        kept = alive[pareto(grown_bytes[alive], grown_values[alive])]
        sizes, values = grown_bytes[kept], grown_values[kept]
        trail.append((kept // len(hull.bytes), kept % len(hull.bytes)))
    best = len(sizes) - 1
    picks: list[int] = []
    state = best
    for parent, pick in reversed(trail):
        picks.append(int(pick[state]))
        state = int(parent[state])
    return picks[::-1], (int(sizes[best]), float(values[best]))
