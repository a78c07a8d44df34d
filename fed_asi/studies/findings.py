"""What a study found: every run's measures, summarised over seeds and compared with the baseline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from fed_asi.errors import RunError
from fed_asi.studies.cells import Cell, StudyRuns
from fed_asi.studies.families import Family, families
from fed_asi.studies.level import Runs, levels
from fed_asi.studies.measures import ACCURACY, MEASURES, Measure
from fed_asi.studies.reading import Reading, read_run
from fed_asi.studies.statistics import Difference, Estimate, compare, estimate


@dataclass(frozen=True, slots=True)
class Row:
    """One variant by one measure.

    difference: from the baseline; None for the baseline itself and in a study without one.
    """

    values: Mapping[int, float]  # by seed
    estimate: Estimate | None  # None if no run has it
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a variant spent to reach the target. values: by seed; None for a run that never reached it.

    estimate and difference: set only if every run reached it. median: over all runs, with those that never reached it
    above all others; None if the median is such a run.
    """

    values: Mapping[int, float | None]
    median: float | None
    estimate: Estimate | None = None
    difference: Difference | None = None

    @property
    def reached(self) -> int:
        """The number of runs that reached the target."""
        return sum(value is not None for value in self.values.values())


@dataclass(frozen=True, slots=True)
class Levelled:
    """Accuracy at equal spending: what the run that ends first had spent at its end.

    limit: that spending, in the measure's unit. rows: by variant.
    """

    limit: float
    rows: Mapping[str, Row]


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that tables, figures and the page show. rows, costs, levels: measure -> variant -> result."""

    study: StudyRuns
    runs: Runs  # every variant, even without a finished run
    families: tuple[Family, ...]
    gaps: tuple[Cell, ...]
    rows: Mapping[Measure, Mapping[str, Row]]
    costs: Mapping[Measure, Mapping[str, Cost]]
    levels: Mapping[Measure, Levelled]
    notes: tuple[str, ...]

    @property
    def variants(self) -> tuple[str, ...]:
        """All variants, in the study's order."""
        return tuple(self.runs)

    @property
    def prices(self) -> tuple[Measure, ...]:
        """The prices that the runs have, in the registry's order; accuracy is weighed against them."""
        return tuple(measure for measure in self.rows if measure.is_price)

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds that have a finished run."""
        return tuple(sorted({seed for runs in self.runs.values() for seed in runs}))


def find(study: StudyRuns) -> Findings:
    """Return the findings of a study's runs.

    Raises RunError if a variant has a seed twice, or if the baseline is not one of the variants.
    """
    _check(study)
    runs, gaps = _read(study)
    settings = {cell.variant: cell.settings for cell in reversed(study.cells)}
    measures = [
        one
        for one in MEASURES.values()
        if any(one.name in run.values for by_seed in runs.values() for run in by_seed.values())
    ]
    return Findings(
        study,
        runs,
        families({name: settings[name] for name in runs}),
        gaps,
        {one: _rows(one, runs, study.baseline) for one in measures},
        _costs(measures, runs, study),
        {
            one: Levelled(level.limit, _summed(level.values, ACCURACY, study.baseline))
            for one, level in levels(runs, measures).items()
        },
        tuple(_notes(runs, study.baseline)),
    )


def _check(study: StudyRuns) -> None:
    seen = Counter((cell.variant, cell.seed) for cell in study.cells)
    twice = next((one for one, times in seen.items() if times > 1), None)
    if twice is not None:
        raise RunError(f"study {study.name}: variant {twice[0]!r} has seed {twice[1]} twice")
    names = dict.fromkeys(cell.variant for cell in study.cells)
    if study.baseline is not None and study.baseline not in names:
        raise RunError(
            f"study {study.name}: baseline {study.baseline!r} is none of its variants: {list(names)}"
        )


def _read(study: StudyRuns) -> tuple[dict[str, dict[int, Reading]], tuple[Cell, ...]]:
    runs: dict[str, dict[int, Reading]] = {cell.variant: {} for cell in study.cells}
    gaps: list[Cell] = []
    for cell in study.cells:
        if cell.gap is not None:
            gaps.append(_named(cell, cell.gap))
            continue
        try:
            runs[cell.variant][cell.seed] = read_run(cell.folder)
        except RunError as error:
            gaps.append(_named(cell, str(error)))
    return runs, tuple(gaps)


def _named(cell: Cell, cause: str) -> Cell:
    """Return a gap with its cause as a report may print it, without the path of its folder on this machine."""
    home = f"{cell.folder.parent.parent}/"
    return replace(cell, gap=cause.replace(str(cell.folder), str(cell.folder).removeprefix(home)))


def _rows(measure: Measure, runs: Runs, baseline: str | None) -> dict[str, Row]:
    values = {
        name: {seed: run.values[measure.name] for seed, run in own.items() if measure.name in run.values}
        for name, own in runs.items()
    }
    return _summed(values, measure, baseline)


def _summed(
    values: Mapping[str, Mapping[int, float]], measure: Measure, baseline: str | None
) -> dict[str, Row]:
    compared = compare(values, baseline) if baseline is not None else {}
    return {
        name: Row(own, estimate(list(own.values()), measure.bounds) if own else None, compared.get(name))
        for name, own in values.items()
    }


def _costs(measures: list[Measure], runs: Runs, study: StudyRuns) -> dict[Measure, dict[str, Cost]]:
    if study.target is None:
        return {}
    spent = sorted((one for one in measures if one.spent), key=lambda one: one.unit != "rounds")
    return {one: _cost(one, runs, study.target, study.baseline) for one in spent}


def _cost(measure: Measure, runs: Runs, target: float, baseline: str | None) -> dict[str, Cost]:
    values = {
        name: {seed: run.spent_to(target, measure) for seed, run in own.items() if measure.name in run.spent}
        for name, own in runs.items()
    }
    whole = {
        name: {seed: value for seed, value in own.items() if value is not None}
        for name, own in values.items()
        if own and None not in own.values()
    }
    compared = compare(whole, baseline) if baseline in whole else {}
    found = {}
    for name, own in values.items():
        known = list(whole.get(name, {}).values())
        summed = estimate(known, measure.bounds) if known else None
        found[name] = Cost(own, _median(list(own.values())), summed, compared.get(name))
    return found


def _median(values: list[float | None]) -> float | None:
    middle = median(math.inf if value is None else value for value in values) if values else math.inf
    return middle if math.isfinite(middle) else None


def _notes(runs: Runs, baseline: str | None) -> Iterator[str]:
    yield from _pairing(runs, baseline)
    every = [run for own in runs.values() for run in own.values()]
    for package in sorted({name for run in every for name in run.versions}):
        found = Counter(run.versions.get(package, "none") for run in every)
        if len(found) > 1:
            told = ", ".join(f"{version} in {count} runs" for version, count in sorted(found.items()))
            yield f"versions of {package} differ: {told}"
    for name, own in runs.items():
        for seed, run in own.items():
            yield from (f"{name}, seed {seed}: {line}" for line in run.missing)


def _pairing(runs: Runs, baseline: str | None) -> Iterator[str]:
    """Yield a line for each variant whose pairs with the baseline share less than the seed."""
    held = runs.get(baseline, {}) if baseline is not None else {}
    for name, own in runs.items():
        common = sorted(own.keys() & held.keys())
        if name == baseline or not common:
            continue
        shards = [seed for seed in common if own[seed].shards != held[seed].shards]
        cohorts = [seed for seed in common if not _same_cohorts(own[seed], held[seed])]
        for seeds, what in ((shards, "shards of other sizes"), (cohorts, "other cohorts")):
            if seeds:
                told = ", ".join(map(str, seeds))
                yield f"{name} has {what} than {baseline} (seeds {told}): the pairs have only the seed in common"


def _same_cohorts(one: Reading, other: Reading) -> bool:
    return all(
        one.cohorts[round] == other.cohorts[round] for round in one.cohorts.keys() & other.cohorts.keys()
    )


def as_data(found: Findings) -> dict[str, Any]:
    """Return the findings as data: every variant's values by seed, mean and difference, and the gaps."""
    variants = [
        {
            "name": name,
            "seeds": sorted(found.runs[name]),
            "measures": {measure.name: rows[name] for measure, rows in found.rows.items()},
            "costs": {measure.name: costs[name] for measure, costs in found.costs.items()},
        }
        for name in found.variants
    ]
    gaps = [{"variant": cell.variant, "seed": cell.seed, "cause": cell.gap} for cell in found.gaps]
    study = found.study
    named = {"name": study.name, "title": study.title, "baseline": study.baseline, "target": study.target}
    return {**named, "variants": variants, "gaps": gaps, "notes": found.notes}
