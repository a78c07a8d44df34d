"""A mean over devices with its 95 % interval, by Student's t."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

LEVEL = 0.95


FEWEST = 3  # devices: with two the interval is a guess, with one there is none


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean of independent values, and half of its 95 % interval; None for fewer than three of them."""

    mean: float
    half: float | None
    count: int


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Return the mean of the values that are known, and half of its interval; None where none is known."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    if len(known) < FEWEST:
        return Estimate(fmean(known), None, len(known))
    from scipy.special import stdtrit

    factor = float(stdtrit(len(known) - 1, (1 + LEVEL) / 2))
    return Estimate(fmean(known), factor * stdev(known) / math.sqrt(len(known)), len(known))
