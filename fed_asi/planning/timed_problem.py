"""One micro-batch and one first trained layer, with the bytes and the device time of each form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fed_asi.methods import Frozen, Method
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.gauge import Gauge
from fed_asi.planning.least import Rows, bound, least
from fed_asi.planning.search import Problem

BYTES, LOST = 0, 1  # rows: what a plan keeps, and its negated worth; then a row per gauge
_FROZEN: Method = Frozen()


@dataclass(frozen=True, slots=True)
class Timed:
    """A problem with its rows: bytes, lost worth, and one per gauge. rest: their sums apart from the forms."""

    problem: Problem
    layers: tuple[Rows, ...]
    rest: Rows

    def bound(self, goal: Sequence[float], upper: Rows) -> float:
        """Return a lower bound on the cost of any choice."""
        return float(np.dot(goal, self.rest)) + bound(self.layers, goal, upper - self.rest)

    def best(self, goal: Sequence[float], upper: Rows) -> tuple[int, ...] | None:
        """Return the index of each layer's form in the choice that costs least; None if none is within the limits."""
        return least(self.layers, goal, upper - self.rest)

    def sums(self, picks: Sequence[int]) -> Rows:
        """Return the sum of each row for a choice."""
        found = self.rest.copy()
        for rows, i in zip(self.layers, picks, strict=True):
            found += rows[:, i]
        return found


def timed(problem: Problem, round: DeviceRound, gauges: Sequence[Gauge]) -> Timed:
    """Return a problem with a row for each of these gauges."""
    question, size = problem.question, problem.micro_batch
    profiled = question.profile.layers
    names = [layer.name for layer in profiled]
    trains = [one.name for one in profiled[problem.first :] if one.head or one.name in question.allowed]
    layers = []
    for layer in profiled[problem.first :]:
        found = question.candidates(layer, size)
        costs = [round.form(layer.name, c.method, size, trains) for c in found]
        rows = [[question.bytes(layer, c) for c in found], [-question.value(layer, c) for c in found]]
        layers.append(np.array([*rows, *([g.of(*cost) for cost in costs] for g in gauges)], dtype=np.float64))
    frozen = [round.form(name, _FROZEN, size, trains)[0] for name in names[: problem.first]]
    rest = round.rest(size, trains, names)
    around = [g.rest + g.of(rest) + sum(g.of(one) for one in frozen) for g in gauges]
    return Timed(problem, tuple(layers), np.array([problem.floor, -problem.frozen_value, *around]))
