"""What asynchronous updates cost in addition to training: processor milliseconds per reply, in a large fleet.

    python experiments/benchmarks/update_cost.py [--devices 100000] [--at-work 1000] [--cohort 10] [--updates 200]

Everything is done as in a run, except for the devices' computing, the strategy's mean, evaluation and files: who is
present, who is drawn, what its round takes, who replies next, and how stale it is. The first update is not counted,
because it makes the plans.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fed_asi.devices.exchange import Exchange
from fed_asi.devices.job import Job
from fed_asi.devices.tasks import Images
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.rounds.answers import Answer
from fed_asi.rounds.asking import Asking, Parcel
from fed_asi.rounds.buffered import Buffered
from fed_asi.rounds.round_clock import RoundClock
from fed_asi.rounds.state import State
from fed_asi.strategies import Update
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare

DEMO = Path(__file__).parents[1] / "fleets" / "demo.toml"
IMAGES = Images(100, 10)
KINDS = {"quick": "raspberry-pi-5", "middle": "raspberry-pi-3", "slow": "stm32h743"}
LIMITS = {"presence": {"kind": "random", "share": 0.7}}
BATTERY = {"battery_joules": 1e6, "charge_watts": 5.0}


class Foretold(Asking):
    """Asks nobody: each device does what was predicted, and moves nothing."""

    def answers(self, jobs: Mapping[int, tuple[Job, float]], parcel: Parcel) -> Iterator[Answer]:
        """Yield the answer to each job."""
        self.clock.sends(parcel.whole)
        for one, (job, began) in jobs.items():
            spent = None if self.clock.timing is None else self.clock.timing.ahead(job)
            found = self.clock.fate(job, spent, began)
            times = {} if spent is None else spent.columns()
            yield Answer(DeviceRoundRecord(job.round, one, "trained", **times), Update(one, 1, {}), found)


class Uncounted:
    """The end of an update without its strategy, evaluation and files."""

    watcher = Unwatched()

    def note_all(self, _answers: list[Answer]) -> None:
        """Ignore them."""

    def after(self, before: State, *_given: Any) -> State:
        """Return the same weights, with what devices keep for later."""
        return State(before.round + 1, before.tensors, {**before.factors_round})

    def finish(self, *_given: Any) -> None:
        """Write nothing."""


def fleet_of(config: RunConfig, given: argparse.Namespace, *, limits: bool) -> RunConfig:
    """Return a fleet of three kinds of devices, with presence, batteries and a deadline, or without limits."""
    content: dict[str, Any] = config.model_dump(mode="json")
    content["groups"] = [
        {
            "name": name,
            "count": given.devices // len(KINDS) + (i < given.devices % len(KINDS)),
            "budget": "unlimited",
            "device": {"preset": preset, "spread": 0.3, **(BATTERY if limits else {})},
            **(LIMITS if limits else {}),
        }
        for i, (name, preset) in enumerate(KINDS.items())
    ]
    content |= {"cohort": given.cohort, "rounds": given.updates + 2}
    content["clock"] = {"at_work": given.at_work, **({"deadline_seconds": 3600.0} if limits else {})}
    return RunConfig.model_validate(content)


def milliseconds(place: Workplace, config: RunConfig, updates: int) -> tuple[float, int]:
    """Return processor milliseconds per reply, and the largest staleness."""
    place, devices = replace(place, config=config), fleet.build(config)
    clock, exchange = RoundClock(place, devices), Exchange.of(config)
    if clock.timing is not None:
        clock.timing._images.update(
            dict.fromkeys(devices.partition_ids, IMAGES)
        )  # there are no shards for them
    asking = Foretold(place, devices, SimpleNamespace(parallel=1), clock, exchange, print)
    buffered = Buffered(asking, clock, Uncounted())  # type: ignore[arg-type]
    state = buffered.next(State(0, dict(place.reference)))
    began, oldest = time.process_time(), 0
    for _ in range(updates):
        state = buffered.next(state)
        oldest = max([oldest, *(state.round - round for round in state.older)])
    return 1e3 * (time.process_time() - began) / (updates * config.cohort), oldest


def main() -> None:
    """Print the cost, without limits and with all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("devices", 100_000), ("at-work", 1000), ("cohort", 10), ("updates", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(DEMO, [])
        place = prepare(config, Path(folder) / "workplace")
        for text, limits in (("always there", False), ("presence, batteries, a deadline", True)):
            found, oldest = milliseconds(place, fleet_of(config, given, limits=limits), given.updates)
            print(f"{text}: {found:.3f} ms a reply; the oldest weights in use were {oldest} updates old")


if __name__ == "__main__":
    main()
