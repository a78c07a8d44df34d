"""A study's numbers as tidy CSV, unrounded: a row per variant and measure, per run and measure, or per run and round.

Names are escaped as everywhere, so each is on one line: not every CSV reader accepts line breaks and NUL in a cell.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields

from fed_asi.studies.families import text
from fed_asi.studies.findings import Cost, Findings, Row
from fed_asi.studies.measures import CURVES
from fed_asi.studies.statistics import Difference, Estimate
from fed_asi.texts import visible

Value = str | int | float | None
ESTIMATE = tuple(one.name for one in fields(Estimate))[1:]
DIFFERENCE = tuple(f"difference_{one.name}" for one in fields(Difference))


def results_csv(found: Findings) -> str:
    """Return CSV with a row per variant and measure: mean, error, interval, paired difference from the baseline."""
    head = (
        "variant",
        *_keys(found),
        "measure",
        "unit",
        "seeds",
        *ESTIMATE,
        "baseline",
        *DIFFERENCE,
        "reached",
        "median",
    )
    return _written(head, _results(found))


def _results(found: Findings) -> Iterator[list[Value]]:
    settings = _settings(found)
    baseline = found.study.baseline or ""
    for measure, rows in found.rows.items():
        for name, row in rows.items():
            yield [
                name,
                *settings[name],
                measure.name,
                measure.unit,
                *_numbers(row),
                baseline,
                *_difference(row),
                None,
                None,
            ]
    for measure, level in found.levels.items():
        for name, row in level.rows.items():
            named = [name, *settings[name], f"accuracy_at_equal_{measure.name}", "share"]
            yield [*named, *_numbers(row), baseline, *_difference(row), None, None]
    for measure, costs in found.costs.items():
        for name, cost in costs.items():
            named = [name, *settings[name], f"{measure.name}_to_target", measure.unit]
            yield [*named, *_numbers(cost), baseline, *_difference(cost), cost.reached, cost.median]


def _numbers(one: Row | Cost) -> list[Value]:
    known = [None] * len(ESTIMATE) if one.estimate is None else list(astuple(one.estimate))[1:]
    return [len(one.values), *known]


def _difference(one: Row | Cost) -> list[Value]:
    if one.difference is None:
        return [None] * len(DIFFERENCE)
    return [None if value is None else value for value in astuple(one.difference)]


def cells_csv(found: Findings) -> str:
    """Return CSV with a row per run and measure.

    A gap has one row, without a measure; a cost that was never reached has a row without a value.
    """
    return _written(("variant", "seed", *_keys(found), "measure", "unit", "value", "gap"), _cells(found))


def _cells(found: Findings) -> Iterator[list[Value]]:
    settings = _settings(found)
    gaps = {(cell.variant, cell.seed): cell.gap for cell in found.gaps}
    for cell in found.study.cells:
        named: list[Value] = [cell.variant, cell.seed, *settings[cell.variant]]
        gap = gaps.get((cell.variant, cell.seed))
        if gap is not None:
            yield [*named, None, None, None, gap]
            continue
        for measure, rows in found.rows.items():
            if cell.seed in rows[cell.variant].values:
                yield [*named, measure.name, measure.unit, rows[cell.variant].values[cell.seed], None]
        for measure, costs in found.costs.items():
            if cell.seed in costs[cell.variant].values:
                spent = costs[cell.variant].values[cell.seed]
                yield [*named, f"{measure.name}_to_target", measure.unit, spent, None]


def rounds_csv(found: Findings) -> str:
    """Return CSV with a row per run and round: the curves, and what was spent up to that round."""
    spent = [measure.name for measure in found.rows if measure.spent and measure.unit != "rounds"]
    return _written(
        ("variant", "seed", "round", *(one.name for one in CURVES), *spent), _rounds(found, spent)
    )


def _rounds(found: Findings, spent: Sequence[str]) -> Iterator[list[Value]]:
    for name, runs in found.runs.items():
        for seed, run in runs.items():
            series = [
                *(run.curves.get(one.name, {}) for one in CURVES),
                *(run.spent.get(one, {}) for one in spent),
            ]
            for round in sorted({number for one in series for number in one}):
                yield [name, seed, round, *(one.get(round) for one in series)]


def _keys(found: Findings) -> list[str]:
    return [
        f"setting {key}" for key in dict.fromkeys(key for cell in found.study.cells for key in cell.settings)
    ]


def _settings(found: Findings) -> Mapping[str, list[Value]]:
    keys = list(dict.fromkeys(key for cell in found.study.cells for key in cell.settings))
    return {cell.variant: [text(cell.settings.get(key)) for key in keys] for cell in found.study.cells}


def _written(head: Iterable[str], rows: Iterable[Sequence[Value]]) -> str:
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow([visible(one) for one in head])
    writer.writerows([visible(one) if isinstance(one, str) else one for one in row] for row in rows)
    return held.getvalue()
