"""Who is there at a time of the run's clock, whose 0 is midnight, UTC: pure functions of fleet, seed and time.

Nothing is kept but what was read: the draw of any device in any period is a hash of both, so a week of 100,000 devices
takes no more memory than an hour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fed_asi import seeds
from fed_asi.fleets.device_keys import PresenceConfig
from fed_asi.fleets.traces import Traces, read_traces

HOUR, DAY = 3600.0, 86400.0
HORIZON = 1e9  # seconds; what does not happen until then never does
_AT_ONCE = 4096  # periods looked at together
Ids = NDArray[np.int64]
There = NDArray[np.bool_]


class Rule(Protocol):
    """When devices with one description are there. ids: partition ids. leaves, comes: infinity for never."""

    def present(self, ids: Ids, at: float) -> There:
        """Return which are there."""

    def leaves(self, partition_id: int, at: float) -> float:
        """Return until when a device that is there stays."""

    def comes(self, partition_id: int, at: float) -> float:
        """Return from when on a device is there, `at` or later."""


def uniform(seed: int, ids: Any, periods: Any) -> NDArray[np.float64]:
    """Return numbers in [0, 1), a hash of seed, device and period each. Source: splitmix64."""
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
    """There at any time."""

    def present(self, ids: Ids, at: float) -> There:  # noqa: ARG002 - whenever it is
        """Return that all are."""
        return np.ones(len(ids), dtype=bool)

    def leaves(self, partition_id: int, at: float) -> float:  # noqa: ARG002 - whoever it is
        """Return infinity."""
        return math.inf

    def comes(self, partition_id: int, at: float) -> float:  # noqa: ARG002 - the same
        """Return now."""
        return at


@dataclass(frozen=True, slots=True)
class AtRandom:
    """There with a chance in each period, by itself."""

    seed: int
    share: float
    period: float

    def present(self, ids: Ids, at: float) -> There:
        """Return whose draw of this period holds."""
        there: There = uniform(self.seed, ids, math.floor(at / self.period)) < self.share
        return there

    def leaves(self, partition_id: int, at: float) -> float:
        """Return the beginning of the next period whose draw does not hold."""
        if self.share >= 1.0:
            return math.inf
        return self.period * _first(
            lambda k: ~self._draws(partition_id, k), math.floor(at / self.period) + 1, self.period
        )

    def comes(self, partition_id: int, at: float) -> float:
        """Return the beginning of the next period whose draw holds, or now."""
        found = _first(lambda k: self._draws(partition_id, k), math.floor(at / self.period), self.period)
        return max(at, self.period * found)

    def _draws(self, partition_id: int, periods: NDArray[np.int64]) -> There:
        there: There = uniform(self.seed, np.array([partition_id]), periods) < self.share
        return there


def _first(holds: Callable[[NDArray[np.int64]], There], start: int, period: float) -> float:
    """Return the first period from `start` on for which something holds; infinity beyond the horizon."""
    while start * period < HORIZON:
        found = np.flatnonzero(holds(np.arange(start, start + _AT_ONCE)))
        if len(found):
            return float(start + int(found[0]))
        start += _AT_ONCE
    return math.inf


@dataclass(frozen=True, slots=True)
class Daily:
    """There from one hour to another by its own clock, on a share of days. zones: hours ahead of UTC, one a device."""

    seed: int
    share: float
    begins: float
    lasts: float
    zones: NDArray[np.float64]

    def present(self, ids: Ids, at: float) -> There:
        """Return whose hours these are, on a day on which it comes."""
        since = at + self._zone(ids) * HOUR - self.begins
        day = np.floor(since / DAY)
        there: There = (since - day * DAY < self.lasts) & self._comes_on(ids, day)
        return there

    def leaves(self, partition_id: int, at: float) -> float:
        """Return the end of its hours; with all hours of the day, of the last of days on end."""
        shift, day = self._day(partition_id, at)
        if self.lasts < DAY:
            return day * DAY + self.lasts - shift
        if self.share >= 1.0:
            return math.inf
        return _first(lambda k: ~self._comes_on(np.array([partition_id]), k), day + 1, DAY) * DAY - shift

    def comes(self, partition_id: int, at: float) -> float:
        """Return the beginning of its next hours, or now."""
        shift, day = self._day(partition_id, at)
        if at + shift - day * DAY >= self.lasts:
            day += 1
        found = _first(lambda k: self._comes_on(np.array([partition_id]), k), day, DAY)
        return max(at, found * DAY - shift)

    def _day(self, partition_id: int, at: float) -> tuple[float, int]:
        """Return what turns the run's time into its own, which begins with its hours, and the day that it is there."""
        shift = float(self._zone(np.array([partition_id]))[0]) * HOUR - self.begins
        return shift, math.floor((at + shift) / DAY)

    def _zone(self, ids: Ids) -> NDArray[np.float64]:
        drawn = (uniform(self.seed ^ 1, ids, 0) * len(self.zones)).astype(np.int64)
        zones: NDArray[np.float64] = self.zones[drawn]
        return zones

    def _comes_on(self, ids: Ids, days: Any) -> There:
        there: There = uniform(self.seed, ids, np.asarray(days).astype(np.int64)) < self.share
        return there


@dataclass(frozen=True, slots=True)
class Traced:
    """There by the intervals of a file; each device draws one of its rows."""

    seed: int
    traces: Traces

    def present(self, ids: Ids, at: float) -> There:
        """Return who is within an interval."""
        return self.traces.present(self._rows(ids), at)

    def leaves(self, partition_id: int, at: float) -> float:
        """Return the end of its interval."""
        return self.traces.leaves(self._row(partition_id), at)

    def comes(self, partition_id: int, at: float) -> float:
        """Return the beginning of its next interval, or now."""
        return self.traces.comes(self._row(partition_id), at)

    def _row(self, partition_id: int) -> int:
        return int(self._rows(np.array([partition_id]))[0])

    def _rows(self, ids: Ids) -> NDArray[np.int64]:
        rows: NDArray[np.int64] = (uniform(self.seed, ids, 0) * len(self.traces)).astype(np.int64)
        return rows


def rule_of(config: PresenceConfig | None, seed: int) -> Rule:
    """Return what a description says. Raises ConfigError for a trace that cannot be read."""
    own = seeds.derive(seed, "presence")
    if config is None or config.kind == "always":
        return Always()
    if config.kind == "random":
        return AtRandom(own, config.share, config.period_seconds)
    if config.kind == "daily":
        lasts = (config.until_hour - config.from_hour) % 24 or 24.0
        return Daily(own, config.share, config.from_hour * HOUR, lasts * HOUR, np.array(config.zones))
    return Traced(own, read_traces(config.trace or ""))


class Attendance:
    """When the devices of a fleet are there, each by its own description. descriptions: by partition id, from 0."""

    def __init__(self, descriptions: Iterable[PresenceConfig | None], seed: int) -> None:
        self._rules: list[tuple[Rule, Ids]] = []
        members: dict[int, tuple[PresenceConfig | None, list[int]]] = {}
        for partition_id, one in enumerate(descriptions):
            members.setdefault(id(one), (one, []))[1].append(partition_id)
        known: dict[PresenceConfig | None, Rule] = {}
        count = sum(len(ids) for _, ids in members.values())
        self._rule_at = np.zeros(count, dtype=np.int64)
        for one, ids in members.values():
            if one not in known:
                known[one] = rule_of(one, seed)
            self._rule_at[ids] = len(self._rules)
            self._rules.append((known[one], np.array(ids, dtype=np.int64)))

    @property
    def always(self) -> bool:
        """Whether everyone is there at any time."""
        return all(isinstance(rule, Always) for rule, _ in self._rules)

    def present(self, at: float) -> There:
        """Return who is there, by partition id."""
        there = np.zeros(len(self._rule_at), dtype=bool)
        for rule, ids in self._rules:
            there[ids] = rule.present(ids, at)
        return there

    def leaves(self, partition_id: int, at: float) -> float:
        """Return until when a device that is there stays; infinity: for ever."""
        return self._rule(partition_id).leaves(partition_id, at)

    def comes(self, partition_id: int, at: float) -> float:
        """Return from when on a device is there, `at` or later; infinity: never."""
        return self._rule(partition_id).comes(partition_id, at)

    def first(self, at: float) -> float:
        """Return from when on anybody is there, `at` or later; infinity: never."""
        if self.present(at).any():
            return at
        return min((self.comes(one, at) for one in range(len(self._rule_at))), default=math.inf)

    def _rule(self, partition_id: int) -> Rule:
        return self._rules[int(self._rule_at[partition_id])][0]
