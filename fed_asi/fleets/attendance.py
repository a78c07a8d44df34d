"""When the devices of a fleet are present, each by its own description."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from fed_asi.fleets.device_keys import PresenceConfig
from fed_asi.fleets.presence import Always, Ids, Rule, There, Times, rule_of


class Attendance:
    """When the devices of a fleet are present. descriptions: by partition id, from 0.

    For each rule, who was present at the last moment asked for is cached: thousands of updates may fall in one
    period.
    """

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
        self._last: dict[int, tuple[float, There]] = {}

    @property
    def always(self) -> bool:
        """Whether everyone is always present."""
        return all(isinstance(rule, Always) for rule, _ in self._rules)

    def present(self, at: float) -> There:
        """Return who is present, by partition id."""
        there = np.zeros(len(self._rule_at), dtype=bool)
        for number, (_, ids) in enumerate(self._rules):
            there[ids] = self._present(number, at)
        return there

    def _present(self, number: int, at: float) -> There:
        """Return which devices of a rule are present, in the order of its ids."""
        rule, ids = self._rules[number]
        moment = rule.moment(at)
        if number not in self._last or self._last[number][0] != moment:
            self._last[number] = moment, rule.present(ids, at)
        return self._last[number][1]

    def leaves(self, partition_id: int, at: float) -> float:
        """Return when a device that is present leaves; infinity if never."""
        return self._rule(partition_id).leaves(partition_id, at)

    def is_there(self, partition_id: int, at: float) -> bool:
        """Return whether a device is present."""
        return bool(self._rule(partition_id).present(np.array([partition_id]), at)[0])

    def first(self, at: Times) -> float:
        """Return when the first device is present, counting each from its own time in `at`; infinity: never."""
        waiting = np.isfinite(at)
        return min(
            (rule.first(some, at[some]) for rule, ids in self._rules if len(some := ids[waiting[ids]])),
            default=math.inf,
        )

    def _rule(self, partition_id: int) -> Rule:
        return self._rules[int(self._rule_at[partition_id])][0]
