"""A study's numbers as text: one unit for all values of a measure, with as many digits as their spread allows."""

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
    """How the numbers of one measure are written. digits: decimals of shares in percent."""

    unit: Unit
    digits: int = 1

    def value(self, value: float) -> str:
        """Return a value as text; a share without its percent sign."""
        if self.unit in PERCENT:
            return f"{100 * value:.{self.digits}f}".replace("-", MINUS)
        if self.unit == "bytes":
            return format_bytes(round(value))
        if self.unit == "rounds":
            return f"{value:.1f}".removesuffix(".0")
        scale, name = next((one for one in SCALES[self.unit] if abs(value) >= one[0]), SCALES[self.unit][-1])
        return f"{value / scale:.3g} {name}" if abs(value / scale) < 999.5 else f"{value / scale:.0f} {name}"

    def change(self, value: float) -> str:
        """Return a difference as text, with its sign."""
        shown = self.value(abs(value))
        return shown if value == 0 else f"{'+' if value > 0 else MINUS}{shown}"

    def span(self, low: float, high: float) -> str:
        """Return an interval of values as text."""
        return f"{self.value(low)} to {self.value(high)}"

    def change_span(self, low: float, high: float) -> str:
        """Return an interval of differences as text."""
        return f"{self.change(low)} to {self.change(high)}"


def wording(measure: Measure, rows: Iterable[Row]) -> Wording:
    """Return how to write a measure's numbers: with enough digits to show the smallest standard error."""
    if measure.unit not in PERCENT:
        return Wording(measure.unit)
    parts = [part for row in rows for part in (row.estimate, row.difference)]
    errors = [part.se for part in parts if part is not None and part.se]
    return Wording(measure.unit, _digits(min(errors, default=1.0)))


def _digits(least_error: float) -> int:
    """Return 1 for an error of at least a twentieth of a point, one more per power of ten below, at most 3."""
    return min(3, max(1, 1 + math.ceil(-math.log10(least_error / 0.0005) - 1e-9)))


def heading(measure: Measure) -> str:
    """Return a measure's heading, with its unit if its values do not show theirs."""
    sign = PERCENT.get(measure.unit)
    return f"{measure.title}, {sign}" if sign is not None else measure.title


def seeds(count: int) -> str:
    """Return the number of seeds as text."""
    return "1 seed" if count == 1 else f"{count} seeds"


def under_estimate(words: Wording, one: Estimate) -> str:
    """Return the text below a mean: its interval or why it has none; empty if all seeds agree as written."""
    if one.low is None or one.high is None:
        return f"{seeds(one.count)}: no interval"
    agree = words.value(one.low) == words.value(one.mean) == words.value(one.high)
    return "" if agree else words.span(one.low, one.high)


def under_difference(words: Wording, one: Difference, of: int) -> str:
    """Return the text below a difference: interval and verdict. of: how many seeds the variant has."""
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
