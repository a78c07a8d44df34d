"""What a clock adds to a made-up run (made_run.py): rounds of one hour, in which device 7 is late."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fed_asi.fleets.clock import Spent
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.results.store import RunStore

HOUR = 3600.0


def with_clock(folder: Path) -> Path:
    """Give every device-round of a run seconds, and as many joules; device 7 needs more than the hour."""
    with RunStore.open(folder) as store:
        for record in store.rounds():
            rows = [_timed(row) for row in store.device_rounds(record.round)]
            joules = sum(row.energy_joules or 0.0 for row in rows)
            start = HOUR * max(0, record.round - 1)
            end = start + HOUR * (record.round > 0)
            told = replace(record, sim_start_seconds=start, sim_end_seconds=end, energy_joules=joules)
            groups = [one for one in store.group_rounds() if one.round == record.round]
            store.add_round(told, rows, groups)
    return folder


def _timed(row: DeviceRoundRecord) -> DeviceRoundRecord:
    parts = (60.0, 100.0, 60.0 * row.partition_id, 40.0, 100.0)
    if row.outcome != "trained":
        return replace(row, **Spent(*5 * (0.0,), *5 * (0.0,)).columns())
    if row.partition_id == 7:
        return replace(
            row, outcome="late", **Spent(60.0, 100.0, HOUR - 160.0, 0.0, 0.0, *5 * (1.0,)).columns()
        )
    return replace(row, **Spent(*parts, *parts).columns())
