"""Variants at equal spending: how accurate each was by the time, and by the joules, at which the first run ends.

Runs with equal numbers of rounds take different times. Their final accuracies then depend as much on how long they ran
as on their method, so they are compared at equal spending.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fed_asi.studies.measures import TARGETED, Measure
from fed_asi.studies.reading import Reading

LEVELLED = ("seconds", "joules")  # units of measures that grow with time
APART = 0.01  # relative: runs whose ends differ by less can be compared at their last rounds

Runs = Mapping[str, Mapping[int, Reading]]  # variant -> seed -> run


@dataclass(frozen=True, slots=True)
class Level:
    """Accuracy at equal spending. limit: the spending of the run that ends first, in the measure's unit.

    values: variant -> seed -> accuracy at the last evaluation within the limit; variants without this
    measure are missing.
    """

    limit: float
    values: Mapping[str, Mapping[int, float]]


def levels(runs: Runs, measures: Iterable[Measure]) -> dict[Measure, Level]:
    """Return the accuracies at equal spending, by each measure that grows with time and differs at the runs' ends."""
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
    """Return a run's accuracy, 0 to 1, at its last evaluation within this spending; 0 before any."""
    curve, spent = run.curves[TARGETED], run.spent[measure.name]
    best = -1
    for round in curve:
        by_then = max((value for number, value in spent.items() if number <= round), default=0.0)
        if by_then <= limit * (1 + 1e-12):
            best = max(best, round)
    return curve.get(best, 0.0)


def _has(run: Reading, measure: Measure) -> bool:
    return measure.name in run.values and bool(run.curves.get(TARGETED))
