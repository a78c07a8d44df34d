"""Runs of fleets in processes of their own, and where the time of their rounds goes, for simulation.py."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Parts:
    """Mean seconds of a round and of its parts, over the same rounds of one run; each part contains the one before.

    alone: the jobs one after another, / workers. beside: as many at once as workers, / workers, and cpu: their CPU
    time.
    packed: until the last of those ends. flower: the jobs in the run, / workers. replied: until the last reply.
    round: all.
    """

    alone: float
    beside: float
    cpu: float
    packed: float
    flower: float
    replied: float
    round: float

    @property
    def efficiency(self) -> float:
        """Wall time / (local training measured alone / workers)."""
        return self.round / self.alone


PARTS = (
    "| | jobs alone / workers | beside each other / workers | their CPU / workers | until the last of them ends "
    "| in the run: jobs / workers | until the last reply | the round |"
)


def parts(folder: Path, workers: int, rounds: int = 6) -> Parts:
    """Return where the time of a run's rounds 2, 3, ... goes, found by repeating their jobs outside of the run."""
    alone, beside = (again(folder, number, rounds) for number in (1, workers))
    wanted = [int(round) for round in alone]
    with RunStore.read(folder) as store:
        records = [record.host_seconds for record in store.rounds() if record.round in wanted]
        jobs = [row.host_seconds or 0.0 for row in store.device_rounds() if row.round in wanted]
    replied = json.loads((folder / "replied.json").read_text())
    each = workers * len(wanted)
    return Parts(
        sum(sum(found["seconds"]) for found in alone.values()) / each,
        sum(sum(found["seconds"]) for found in beside.values()) / each,
        sum(sum(found["cpu"]) for found in beside.values()) / each,
        statistics.mean(found["ended"] for found in beside.values()),
        sum(jobs) / each,
        statistics.mean(replied[str(round)] for round in wanted),
        statistics.mean(records),
    )


def again(folder: Path, workers: int, rounds: int) -> dict[str, dict[str, Any]]:
    """Return what local_work.py measures when it repeats a run's jobs, by round."""
    script = Path(__file__).with_name("local_work.py")
    options = ["--rounds", str(rounds), "--workers", str(workers)]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    command = [sys.executable, str(script), "again", str(folder), *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def python_path() -> str:
    """Return PYTHONPATH with the repository first, so that scripts beside it find the package under test."""
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))


def parts_table(measured: Mapping[str, Parts]) -> list[str]:
    """Return the table of a round's parts."""
    rows = [
        f"| {name} | {' | '.join(f'{seconds:.2f}' for seconds in astuple(found))} |"
        for name, found in measured.items()
    ]
    return ["", PARTS, "|---|---|---|---|---|---|---|---|", *rows]
