"""Numbers of a study as people read them: one measure's always in the same unit, and as exact as its spread allows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fed_asi.studies.findings import Row
from fed_asi.studies.measures import Measure, Unit
from fed_asi.studies.statistics import FEWEST_SEEDS, Difference, Estimate, Verdict
from fed_asi.units import format_bytes

MINUS = "\u2212"
PERCENT: dict[str, str] = {"share": "%", "points": "points"}
SCALES = {"seconds": ((3600, "h"), (60, "min"), (1, "s")), "joules": ((1e6, "MJ"), (1e3, "kJ"), (1, "J"))}


@dataclass(frozen=True, slots=True)
class Wording:
    """How one measure's numbers are written. digits: behind the point, of shares in percent."""

    unit: Unit
    digits: int = 1

    def value(self, value: float) -> str:
        """Return a value; of a share without its percent sign."""
        if self.unit in PERCENT:
            return f"{100 * value:.{self.digits}f}".replace("-", MINUS)
        if self.unit == "bytes":
            return format_bytes(round(value))
        if self.unit == "rounds":
            return f"{value:.1f}".removesuffix(".0")
        scale, name = next((one for one in SCALES[self.unit] if abs(value) >= one[0]), SCALES[self.unit][-1])
        return f"{value / scale:.3g} {name}" if abs(value / scale) < 999.5 else f"{value / scale:.0f} {name}"

    def change(self, value: float) -> str:
        """Return a difference, with its sign."""
        shown = self.value(abs(value))
        return shown if value == 0 else f"{'+' if value > 0 else MINUS}{shown}"

    def span(self, low: float, high: float) -> str:
        """Return an interval of values."""
        return f"{self.value(low)} to {self.value(high)}"

    def change_span(self, low: float, high: float) -> str:
        """Return an interval of differences."""
        return f"{self.change(low)} to {self.change(high)}"


def wording(measure: Measure, rows: Iterable[Row]) -> Wording:
    """Return how a measure's numbers are written: with digits enough that the least standard error shows."""
    if measure.unit not in PERCENT:
        return Wording(measure.unit)
    parts = [part for row in rows for part in (row.estimate, row.difference)]
    errors = [part.se for part in parts if part is not None and part.se]
    return Wording(measure.unit, _digits(min(errors, default=1.0)))


def _digits(least_error: float) -> int:
    """Return 1 for an error of a twentieth of a point or more, one more for each power of ten below, 3 at most."""
    return min(3, max(1, 1 + math.ceil(-math.log10(least_error / 0.0005) - 1e-9)))


def heading(measure: Measure) -> str:
    """Return a measure's heading with its unit, where its values do not name theirs."""
    sign = PERCENT.get(measure.unit)
    return f"{measure.title}, {sign}" if sign is not None else measure.title


def seeds(count: int) -> str:
    """Return how many seeds there are."""
    return "1 seed" if count == 1 else f"{count} seeds"


def under_estimate(words: Wording, one: Estimate) -> str:
    """Return what stands under a mean: its interval, or why there is none; nothing where all seeds agree as written."""
    if one.low is None or one.high is None:
        return f"{seeds(one.count)}: no interval"
    agree = words.value(one.low) == words.value(one.mean) == words.value(one.high)
    return "" if agree else words.span(one.low, one.high)


def under_difference(words: Wording, one: Difference, of: int) -> str:
    """Return what stands under a difference: interval and verdict. of: how many seeds the variant has."""
    if one.verdict is Verdict.NONE:
        return str(one.verdict)
    parts = (
        [words.change_span(one.low, one.high)]
        if one.low is not None and one.high is not None and one.se
        else []
    )
    parts.append(str(one.verdict))
    if one.count < of or one.count < FEWEST_SEEDS:
        parts.append("1 pair" if one.count == 1 else f"{one.count} pairs")
    return ", ".join(parts)
