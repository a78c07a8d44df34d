"""What one finished run recorded: measures, curves, participation, and what its pairs must share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from fed_asi.errors import RunError
from fed_asi.results.store import RunStore
from fed_asi.studies.measures import CURVES, MEASURES, TARGETED, Measure

Series = Mapping[int, float]  # round -> value


@dataclass(frozen=True, slots=True)
class Share:
    """How often the devices of a group were asked, and how often they trained."""

    asked: int
    trained: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The records of one run, as a study needs them.

    values: of the measures that the run has. curves: by round, for the rounds that evaluated. spent: for each measure
    that is spent, its sum by the end of each round. outcomes: counts of device-rounds. cohorts: round -> a digest of
    the asked devices. shards: a digest of the devices and their shards' sizes.
    """

    values: Mapping[str, float]
    curves: Mapping[str, Series]
    spent: Mapping[str, Series]
    groups: Mapping[str, Share]
    outcomes: Mapping[str, int]
    shards: str
    cohorts: Mapping[int, str]
    versions: Mapping[str, str]
    missing: tuple[str, ...]
    shared: Mapping[
        str, float
    ]  # group -> the last shared model's accuracy on all of its devices' held-out images

    def spent_to(self, target: float, measure: Measure) -> float | None:
        """Return the spending by the first evaluation at or above the target; None if never reached, or unknown."""
        reached = [round for round, value in self.curves.get(TARGETED, {}).items() if value >= target]
        known = self.spent.get(measure.name)
        if not reached or known is None:
            return None
        return max((value for round, value in known.items() if round <= min(reached)), default=0.0)


_GROUPS = """
SELECT group_name, count(round), total(outcome = 'trained') FROM devices LEFT JOIN device_rounds USING (partition_id)
GROUP BY group_name ORDER BY min(devices.partition_id)
"""

_SHARED = """
SELECT group_name, accuracy FROM group_rounds
WHERE round = (SELECT max(round) FROM group_rounds) AND accuracy IS NOT NULL
"""

_OUTCOMES = "SELECT outcome, count(*) FROM device_rounds GROUP BY outcome ORDER BY outcome"

_SHARDS = "SELECT partition_id, num_examples FROM devices ORDER BY partition_id"

_COHORTS = """
SELECT round, group_concat(partition_id)
FROM (SELECT round, partition_id FROM device_rounds ORDER BY round, partition_id) GROUP BY round ORDER BY round
"""


def read_run(folder: Path) -> Reading:
    """Return what a run recorded. Raises RunError if the folder has no finished run that can be read."""
    with RunStore.read(folder) as store:
        if store.run().status != "finished":
            raise RunError(f"the run in {folder} is not finished: {store.run().status}")
        columns = _columns(store)
        values, spent = _measured(store, columns)
        return Reading(
            values,
            {
                one.name: _series(store.select(one.way.query))
                for one in CURVES
                if columns.issuperset(one.way.needs)
            },
            spent,
            {name: Share(asked, int(trained)) for name, asked, trained in store.select(_GROUPS)},
            dict(store.select(_OUTCOMES)),
            _digest(store.select(_SHARDS)),
            {round: _digest([who]) for round, who in store.select(_COHORTS)},
            store.run().versions,
            tuple(store.missing()),
            dict(store.select(_SHARED)),
        )


def _columns(store: RunStore) -> frozenset[str]:
    found = store.select(
        "SELECT DISTINCT tables.name, columns.name FROM "
        "(SELECT name FROM sqlite_master UNION SELECT name FROM sqlite_temp_master) AS tables, "
        "pragma_table_info(tables.name) AS columns"
    )
    return frozenset(f"{table}.{column}" for table, column in found)


def _measured(store: RunStore, columns: frozenset[str]) -> tuple[dict[str, float], dict[str, Series]]:
    values: dict[str, float] = {}
    spent: dict[str, Series] = {}
    for measure in MEASURES.values():
        way = measure.way(columns)
        rows = store.select(way.query) if way is not None else []
        if measure.spent:
            series = _series(rows)
            if series and len(series) == len(rows):
                spent[measure.name] = dict(zip(series, accumulate(series.values()), strict=True))
                values[measure.name] = sum(series.values())
        elif rows and _is_known(rows[0][0]):
            values[measure.name] = float(rows[0][0])
    return values, spent


def _series(rows: Iterable[tuple[Any, ...]]) -> dict[int, float]:
    return {round: float(value) for round, value in rows if _is_known(value)}


def _is_known(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _digest(content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]
