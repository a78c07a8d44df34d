"""Variants on a level: how good each had become by the time, and by the joules, at which the first run of all ends.

Runs of as many rounds take different times. What they reach at their ends then says as much of how long they went on
as of what they did, and only what they had reached at the same spending can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fed_asi.studies.measures import TARGETED, Measure
from fed_asi.studies.reading import Reading

LEVELLED = ("seconds", "joules")  # units of what is spent as time goes on
APART = 0.01  # runs whose ends differ by less ended together: their last rounds say it already

Runs = Mapping[str, Mapping[int, Reading]]  # variant -> seed -> run


@dataclass(frozen=True, slots=True)
class Level:
    """Accuracy at the same spending. limit: what the first run of all had spent at its end, in the measure's unit.

    values: variant -> seed -> accuracy of its last evaluation within the limit; variants without this measure lack.
    """

    limit: float
    values: Mapping[str, Mapping[int, float]]


def levels(runs: Runs, measures: Iterable[Measure]) -> dict[Measure, Level]:
    """Return the variants on a level by each of the measures that are spent as time goes on, where ends differ."""
    found = {}
    for measure in measures:
        if measure.unit not in LEVELLED or not (measure.is_price and measure.spent):
            continue
        ends = [
            run.values[measure.name] for own in runs.values() for run in own.values() if _has(run, measure)
        ]
        if ends and min(ends) > 0 and max(ends) > (1 + APART) * min(ends):
            found[measure] = Level(min(ends), _reached(runs, measure, min(ends)))
    return found


def _reached(runs: Runs, measure: Measure, limit: float) -> dict[str, dict[int, float]]:
    return {
        name: {seed: reached_within(run, measure, limit) for seed, run in own.items() if _has(run, measure)}
        for name, own in runs.items()
    }


def reached_within(run: Reading, measure: Measure, limit: float) -> float:
    """Return a run's accuracy at its last evaluation that it had spent no more than `limit` by; 0 before any."""
    curve, spent = run.curves[TARGETED], run.spent[measure.name]
    best = -1
    for round in curve:
        by_then = max((value for number, value in spent.items() if number <= round), default=0.0)
        if by_then <= limit * (1 + 1e-12):
            best = max(best, round)
    return curve.get(best, 0.0)


def _has(run: Reading, measure: Measure) -> bool:
    return measure.name in run.values and bool(run.curves.get(TARGETED))
