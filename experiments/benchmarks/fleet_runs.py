"""Runs of fleets in processes of their own, as the tables of simulation.py need them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.results.store import RunStore

ROOT = Path(__file__).parents[2]
FLEET = ROOT / "experiments" / "fleets" / "cifar10.toml"
IMAGES = 50_000 - 256  # that are left for devices of a fleet with tiny local work
RUN = """
import json, pathlib, resource, sys, time
from fed_asi.fleets.config import RunConfig
from fed_asi.flower.simulation import run_flower
folder = pathlib.Path(sys.argv[1])
config = RunConfig.from_json((folder.parent / f"{folder.name}.json").read_text())
from fed_asi.results.progress import Unwatched
class Clock(Unwatched):
    busy, begun, replied = [], {}, {}
    def round_started(self, round, rounds, asked):
        self.begun[round] = time.perf_counter()
    def device_done(self, record):
        self.replied[record.round] = time.perf_counter() - self.begun[record.round]
    def round_done(self, record):
        self.busy.append(time.process_time())
run_flower(config, folder, watcher=Clock())
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
between = (Clock.busy[-1] - Clock.busy[1]) / max(1, len(Clock.busy) - 2)
(folder / "replied.json").write_text(json.dumps(Clock.replied))
print(own, between)
"""


def ours(folder: Path, config: RunConfig) -> tuple[float, float, float]:
    """Do a run in its own process; return its seconds with start-up, its peak MiB, and its CPU seconds per round."""
    (folder.parent / f"{folder.name}.json").write_text(config.to_json())
    command = [sys.executable, "-c", RUN, str(folder)]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    kib, busy = (float(word) for word in done.stdout.split()[-2:])
    return seconds, kib / 1024, busy


def seconds_of_rounds(folder: Path) -> list[float]:
    """Return the seconds of each round from the second on; the first includes the workers' start."""
    with RunStore.read(folder) as store:
        return [record.host_seconds for record in store.rounds() if record.round >= 2]


def with_(config: RunConfig, **changes: object) -> RunConfig:
    """Return the settings with these sections merged in."""
    content = config.model_dump(mode="json")
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(content)


def scaled(devices: int, cohort: int, images: int, workers: int) -> RunConfig:
    """Return a fleet whose devices train little, so that the overhead around training is what is measured."""
    return with_(
        load_config(ROOT / "experiments" / "fleets" / "demo.toml"),
        name=f"scale-{devices}",
        rounds=6,
        cohort=cohort,
        groups=[{"name": "all", "count": devices, "budget": None, "batch_size": 32}],
        model={"weights": "none"},
        data={"source": "cifar10", "public": 256, "limit": images, "test_limit": 256, "holdout": 0.0},
        sharding={"scheme": "iid", "minimum": 1},
        method={"name": "head", "methods": None},
        compute={"workers": workers},
    )
