"""Statistics over several seeds: means, intervals, and differences paired by seed with a corrected test.

All of it uses Student's t, which is exact for normal values and cautious with few: with three seeds its 95 % interval
reaches 4.3 standard errors to each side. The usual alternatives fail with few seeds. With three values, a bootstrap's
95 % interval covers only 75 % of the time; Wilcoxon's signed-rank test cannot give less than p = 0.25 with three pairs
and 0.0625 with five (tests/studies/test_statistics.py shows both). Nothing is concluded from fewer than three seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import stdev

from scipy import stats

from fed_asi.results import estimate as by_t

FEWEST_SEEDS = by_t.FEWEST
ROUNDING = 1e-12  # relative to the values: a spread below it comes from rounding

Bounds = tuple[float, float]
ANYTHING: Bounds = (-math.inf, math.inf)


class Verdict(StrEnum):
    """What a comparison shows, in words that fit any measure."""

    HIGHER = "higher"
    LOWER = "lower"
    OPEN = "not told apart"
    EQUAL = "equal in every seed"
    CONSTANT = "the same difference in every seed"  # without spread there is no test
    FEW = "too few seeds"
    NONE = "no common seed"


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean over seeds, with its standard error (from two seeds on) and interval (from three on)."""

    count: int
    mean: float
    se: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """A variant minus the baseline, paired by seed.

    count: of pairs. p: of the paired t-test. corrected_p: by Holm's method.
    """

    count: int
    verdict: Verdict
    mean: float | None = None
    se: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    corrected_p: float | None = None


def estimate(values: Sequence[float], bounds: Bounds = ANYTHING) -> Estimate:
    """Return the mean over a variant's seeds with its t interval, clipped to the possible range of the measure.

    Raises ValueError if there are no values or if one is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"no mean of {list(values)}")
    if _spread_is_rounding(values, values):
        point = float(values[0])
        interval = (point, point) if len(values) >= FEWEST_SEEDS else (None, None)
        return Estimate(len(values), point, 0.0 if len(values) > 1 else None, *interval)
    found = by_t.estimate(values)
    if found is None or len(values) == 1:
        return Estimate(len(values), float(values[0]))
    se = stdev(values) / math.sqrt(len(values))
    if found.half is None:
        return Estimate(found.count, found.mean, se)
    low, high = max(found.mean - found.half, bounds[0]), min(found.mean + found.half, bounds[1])
    return Estimate(found.count, found.mean, se, low, high)


def compare(values: Mapping[str, Mapping[int, float]], baseline: str) -> dict[str, Difference]:
    """Return each other variant's difference from the baseline, over the seeds that both have.

    values: variant -> seed -> value of one measure. The comparisons of one call are one family. Holm's correction
    counts all that have three pairs, even those without a spread to test, so that the results do not decide how
    many tests were made. A variant is higher or lower only if its own interval excludes zero and its corrected p
    is below 0.05.
    """
    held = values.get(baseline, {})
    found = {name: _paired(own, held) for name, own in values.items() if name != baseline}
    tried = [name for name, one in found.items() if one.count >= FEWEST_SEEDS]
    ps = [1.0 if (p := found[name].p) is None else p for name in tried]
    for name, p in zip(tried, holm(ps), strict=True):
        if found[name].p is not None:
            found[name] = _judged(replace(found[name], corrected_p=p))
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons, in the order given.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    corrected = [0.0] * len(ps)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[index]))
        corrected[index] = largest
    return corrected


def _paired(own: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """Return the difference over common seeds; if it was tested, its verdict is still open."""
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return Difference(0, Verdict.NONE)
    differences = [own[seed] - other[seed] for seed in seeds]
    sizes = [*(own[seed] for seed in seeds), *(other[seed] for seed in seeds)]
    if _spread_is_rounding(differences, sizes):
        return _without_spread(len(seeds), differences[0], sizes)
    found = estimate(differences)
    if found.low is None:
        return Difference(found.count, Verdict.FEW, found.mean, found.se)
    p = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return Difference(found.count, Verdict.OPEN, found.mean, found.se, found.low, found.high, p)


def _without_spread(count: int, step: float, sizes: Sequence[float]) -> Difference:
    step = 0.0 if abs(step) <= ROUNDING * max(map(abs, sizes)) else step
    if count < FEWEST_SEEDS:
        return Difference(count, Verdict.FEW, step, 0.0 if count > 1 else None)
    return Difference(count, Verdict.CONSTANT if step else Verdict.EQUAL, step, 0.0, step, step)


def _judged(one: Difference) -> Difference:
    if one.corrected_p is None or one.corrected_p >= 1 - by_t.LEVEL:
        return one
    if one.low is not None and one.low > 0:
        return replace(one, verdict=Verdict.HIGHER)
    if one.high is not None and one.high < 0:
        return replace(one, verdict=Verdict.LOWER)
    return one


def _spread_is_rounding(values: Sequence[float], sizes: Sequence[float]) -> bool:
    return max(values) - min(values) <= ROUNDING * max(map(abs, sizes))
