"""What the run's clock costs: processor milliseconds per device-round; nothing if no device has a clock.

    python experiments/benchmarks/clock_cost.py experiments/fleets/demo.toml
    python experiments/benchmarks/clock_cost.py experiments/fleets/cifar10.toml data.limit=4000

All groups get a preset with a spread, presence and a deadline. Making a plan for the first time is a cost of planning
and not of the clock, so the first round is not counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fed_asi.devices.job import Job
from fed_asi.devices.work import described
from fed_asi.errors import BudgetError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.rounds.round_clock import RoundClock
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare

ROUNDS = 21
DEVICE = {"preset": "raspberry-pi-5", "spread": 0.3, "battery_joules": 1e6, "charge_watts": 5.0}
OWN = {"device": DEVICE, "presence": {"kind": "random", "share": 0.7}}


def milliseconds(place: Workplace, config: RunConfig) -> float:
    """Return the processor milliseconds per device-round of everything the clock is asked, from round 2 on."""
    place, devices = replace(place, config=config), fleet.build(config)
    clock, taken, asked = RoundClock(place, devices), 0.0, 0
    for round in range(1, ROUNDS + 1):
        began = time.process_time()
        cohort = clock.cohort(round)
        jobs = [Job(round, one, devices[one].resources_at(round), 0.05) for one in cohort]
        fates = clock.fates(jobs, place.reference, clock.now)
        records = [_record(place, clock, job) for job in jobs]
        clock.closed(
            RoundRecord(round, len(jobs), len(jobs), None, None), records, max(f.ends for f in fates)
        )
        if round > 1:
            taken, asked = taken + time.process_time() - began, asked + len(jobs)
    return 1e3 * taken / asked


def _record(place: Workplace, clock: RoundClock, job: Job) -> DeviceRoundRecord:
    if clock.timing is None:
        return DeviceRoundRecord(job.round, job.partition_id, "trained")
    stats: dict[str, Any] = {"outcome": "trained", "policy": None}
    try:
        stats |= described(place.plans.first(job.resources))
    except BudgetError:
        stats["outcome"] = "excluded"
    spent = clock.fate(job, clock.timing.after(job, stats), clock.now).spent
    return DeviceRoundRecord(
        job.round, job.partition_id, stats["outcome"], **spent.columns() if spent else {}
    )


def clocked(config: RunConfig) -> RunConfig:
    """Return the same fleet, with devices that have all kinds of limits."""
    content: dict[str, Any] = config.model_dump(mode="json")
    content["groups"] = [{**group, **OWN} for group in content["groups"]]
    content["clock"] = {"deadline_seconds": 3600.0, "fit": True}
    return RunConfig.model_validate(content)


def main() -> None:
    config = load_config(Path(sys.argv[1]), sys.argv[2:])
    with tempfile.TemporaryDirectory() as folder:
        place = prepare(config, Path(folder) / "workplace")
        for name, one in (("without a clock", config), ("with one", clocked(config))):
            print(f"{name}: {milliseconds(place, one):.3f} ms a device-round")


if __name__ == "__main__":
    main()
