"""Who is present at a time of the run's clock, whose 0 is midnight, UTC: pure functions of fleet, seed and time.

Nothing is stored but files that were read. The draw of any device in any period is a hash of both, so a week of
100,000 devices takes no more memory than an hour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fed_asi import seeds
from fed_asi.fleets.device_keys import PresenceConfig
from fed_asi.fleets.traces import Traces, read_traces

HOUR, DAY = 3600.0, 86400.0
HORIZON = 1e9  # seconds; what does not happen before then never does
_FIRST, _AT_ONCE = 16, 4096  # periods searched together: at first, and at most
Ids = NDArray[np.int64]
There = NDArray[np.bool_]
Times = NDArray[np.float64]


class Rule(Protocol):
    """The presence of devices that share a description. ids: partition ids. leaves, first: infinity for never."""

    def moment(self, at: float) -> float:
        """Return the part of a time that decides presence: between two times with one moment, nobody comes or goes."""

    def present(self, ids: Ids, at: float) -> There:
        """Return which of them are present."""

    def leaves(self, partition_id: int, at: float) -> float:
        """Return when a device that is present leaves."""

    def first(self, ids: Ids, at: Times) -> float:
        """Return when the first of some devices is present. at: for each, the earliest time that counts."""


def uniform(seed: int, ids: Any, periods: Any) -> NDArray[np.float64]:
    """Return numbers in [0, 1), each a hash of seed, device and period. Source: splitmix64."""
    with np.errstate(over="ignore"):
        first = _mixed(np.asarray(ids, dtype=np.int64).astype(np.uint64) + np.array([seed], dtype=np.uint64))
        found = _mixed(first ^ _mixed(np.asarray(periods, dtype=np.int64).astype(np.uint64)))
    share: NDArray[np.float64] = (found >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return share


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed


@dataclass(frozen=True, slots=True)
class Always:
    """Present at all times."""

    def moment(self, at: float) -> float:  # noqa: ARG002 - whenever it is
        """Return a constant, as presence never changes."""
        return 0.0

    def present(self, ids: Ids, at: float) -> There:  # noqa: ARG002 - whenever it is
        """Return that all are present."""
        return np.ones(len(ids), dtype=bool)

    def leaves(self, partition_id: int, at: float) -> float:  # noqa: ARG002 - whoever it is
        """Return infinity."""
        return math.inf

    def first(self, ids: Ids, at: Times) -> float:  # noqa: ARG002 - the same
        """Return the first of these times."""
        return float(at.min(initial=math.inf))


@dataclass(frozen=True, slots=True)
class AtRandom:
    """Present with a chance in each period, independently of others."""

    seed: int
    share: float
    period: float

    def moment(self, at: float) -> float:
        """Return the index of its period."""
        return math.floor(at / self.period)

    def present(self, ids: Ids, at: float) -> There:
        """Return which devices are drawn in this period."""
        there: There = uniform(self.seed, ids, math.floor(at / self.period)) < self.share
        return there

    def leaves(self, partition_id: int, at: float) -> float:
        """Return the start of the next period in which the device is not drawn."""
        if self.share >= 1.0:
            return math.inf
        ids, start = np.array([partition_id]), math.floor(at / self.period) + 1
        return self.period * _next(lambda k: ~self._draws(ids, k), start, self.period)

    def first(self, ids: Ids, at: Times) -> float:
        """Return the start of the next period in which one of the devices is drawn, or now."""
        periods = np.floor(at / self.period).astype(np.int64)
        return _soonest(ids, periods, at, self._draws, lambda _ids, k, at: np.maximum(at, self.period * k))

    def _draws(self, ids: Ids, periods: NDArray[np.int64]) -> There:
        there: There = uniform(self.seed, ids, periods) < self.share
        return there


def _soonest(
    ids: Ids,
    periods: NDArray[np.int64],
    at: Times,
    holds: Callable[[Ids, NDArray[np.int64]], There],
    begins: Callable[[Ids, NDArray[np.int64], Times], Times],
) -> float:
    """Return when the first of some devices comes; infinity beyond the horizon.

    periods: for each device, the first period that may hold; devices that cannot beat the best so far are dropped.
    """
    best = math.inf
    while len(ids):
        there = holds(ids, periods)
        best = min(best, float(begins(ids, periods, at)[there].min(initial=math.inf)))
        ids, periods, at = ids[~there], periods[~there] + 1, at[~there]
        sooner = begins(ids, periods, at) < min(best, HORIZON)
        ids, periods, at = ids[sooner], periods[sooner], at[sooner]
    return best


def _next(holds: Callable[[NDArray[np.int64]], There], start: int, period: float) -> float:
    """Return the first period from `start` on in which a condition holds; infinity beyond the horizon."""
    count = _FIRST
    while start * period < HORIZON:
        found = np.flatnonzero(holds(np.arange(start, start + count)))
        if len(found):
            return float(start + int(found[0]))
        start, count = start + count, min(2 * count, _AT_ONCE)
    return math.inf


@dataclass(frozen=True, slots=True)
class Daily:
    """Present from one hour to another, local time, on a share of days. zones: hours ahead of UTC, by device."""

    seed: int
    share: float
    begins: float
    lasts: float
    zones: NDArray[np.float64]

    def moment(self, at: float) -> float:
        """Return the time itself: devices may come and go at any."""
        return at

    def present(self, ids: Ids, at: float) -> There:
        """Return which devices are within their hours, on a day on which they come."""
        since = at + self._shift(ids)
        day = np.floor(since / DAY)
        there: There = (since - day * DAY < self.lasts) & self._comes_on(ids, day)
        return there

    def leaves(self, partition_id: int, at: float) -> float:
        """Return the end of its hours; if they are the whole day, the end of the last day in a row."""
        shift, day = self._day(partition_id, at)
        if self.lasts < DAY:
            return day * DAY + self.lasts - shift
        if self.share >= 1.0:
            return math.inf
        return _next(lambda k: ~self._comes_on(np.array([partition_id]), k), day + 1, DAY) * DAY - shift

    def first(self, ids: Ids, at: Times) -> float:
        """Return the start of the next of their hours, or now."""
        own = at + self._shift(ids)
        days = np.floor(own / DAY).astype(np.int64)
        days += own - days * DAY >= self.lasts
        return _soonest(ids, days, at, self._comes_on, self._begins)

    def _begins(self, ids: Ids, days: NDArray[np.int64], at: Times) -> Times:
        return np.maximum(at, days * DAY - self._shift(ids))

    def _day(self, partition_id: int, at: float) -> tuple[float, int]:
        """Return the shift from the run's time to the device's own, and the index of the device's day."""
        shift = float(self._shift(np.array([partition_id]))[0])
        return shift, math.floor((at + shift) / DAY)

    def _shift(self, ids: Ids) -> Times:
        """Return the shift from the run's time to the devices' own, whose days begin with their hours."""
        shift: Times = self._zone(ids) * HOUR - self.begins
        return shift

    def _zone(self, ids: Ids) -> NDArray[np.float64]:
        drawn = (uniform(self.seed ^ 1, ids, 0) * len(self.zones)).astype(np.int64)
        zones: NDArray[np.float64] = self.zones[drawn]
        return zones

    def _comes_on(self, ids: Ids, days: Any) -> There:
        there: There = uniform(self.seed, ids, np.asarray(days).astype(np.int64)) < self.share
        return there


@dataclass(frozen=True, slots=True)
class Traced:
    """Present in the intervals of a file; each device draws one of its rows."""

    seed: int
    traces: Traces

    def moment(self, at: float) -> float:
        """Return the time itself: devices may come and go at any."""
        return at

    def present(self, ids: Ids, at: float) -> There:
        """Return which devices are within an interval."""
        return self.traces.present(self._rows(ids), at)

    def leaves(self, partition_id: int, at: float) -> float:
        """Return the end of its interval."""
        return self.traces.leaves(int(self._rows(np.array([partition_id]))[0]), at)

    def first(self, ids: Ids, at: Times) -> float:
        """Return the start of the next of their intervals, or now."""
        return float(self.traces.comes(self._rows(ids), at).min(initial=math.inf))

    def _rows(self, ids: Ids) -> NDArray[np.int64]:
        rows: NDArray[np.int64] = (uniform(self.seed, ids, 0) * len(self.traces)).astype(np.int64)
        return rows


def rule_of(config: PresenceConfig | None, seed: int) -> Rule:
    """Return the rule of a description. Raises ConfigError for a trace that cannot be read."""
    own = seeds.derive(seed, "presence")
    if config is None or config.kind == "always":
        return Always()
    if config.kind == "random":
        return AtRandom(own, config.share, config.period_seconds)
    if config.kind == "daily":
        lasts = (config.until_hour - config.from_hour) % 24 or 24.0
        return Daily(own, config.share, config.from_hour * HOUR, lasts * HOUR, np.array(config.zones))
    return Traced(own, read_traces(config.trace or ""))
