"""How fast the simulation is: against a plain Flower app, by size of the fleet, and on a Ray cluster.

    python experiments/benchmarks/simulation.py plain  [--rounds 4] [--workers 4]
    python experiments/benchmarks/simulation.py scale  [--devices 10 100 1000 5000]
    python experiments/benchmarks/simulation.py cluster   # two nodes on loopback

All of one table is measured in one call on one machine; --log FILE keeps what is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from kill_test import kill_session

from fed_asi import data
from fed_asi.config import RunConfig
from fed_asi.config_file import load_config
from fed_asi.records import RunStore
from server.environment import QUIET

ROOT = Path(__file__).parents[2]
FLEET = ROOT / "experiments" / "fleets" / "cifar10.toml"
RUN = """
import pathlib, resource, sys, time
started = time.perf_counter()
from fed_asi.config import RunConfig
from server.simulation import run_flower
folder = pathlib.Path(sys.argv[1])
config = RunConfig.from_json((folder.parent / f"{folder.name}.json").read_text())
from fed_asi.progress import Unwatched
class Clock(Unwatched):
    moments = []
    def round_done(self, record):
        self.moments.append(time.process_time())
run_flower(config, folder, watcher=Clock())
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
between = (Clock.moments[-1] - Clock.moments[1]) / max(1, len(Clock.moments) - 2)
print(time.perf_counter() - started, own, between)
"""


def ours(folder: Path, config: RunConfig) -> tuple[float, float, float]:
    """Do a run in a process of its own; return its seconds with start-up, its peak MiB, its CPU s a round."""
    (folder.parent / f"{folder.name}.json").write_text(config.to_json())
    command = [sys.executable, "-c", RUN, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    seconds, kib, busy = (float(word) for word in done.stdout.split()[-3:])
    return seconds, kib / 1024, busy


def seconds_of_rounds(folder: Path) -> list[float]:
    """Return the seconds of each round from the second on: the first carries the workers' start."""
    with RunStore.read(folder) as store:
        return [record.host_seconds for record in store.rounds() if record.round >= 2]


def efficiency(folder: Path, workers: int) -> float:
    """Return wall time of the rounds from the second on / (local training times alone / workers)."""
    with RunStore.read(folder) as store:
        busy = sum(row.host_seconds or 0.0 for row in store.device_rounds() if row.round >= 2)
    return sum(seconds_of_rounds(folder)) / (busy / workers)


def with_(config: RunConfig, **changes: object) -> RunConfig:
    """Return the settings with sections merged."""
    content = config.model_dump(mode="json")
    for key, value in changes.items():
        content[key] = {**content[key], **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(content)


def against_plain(given: argparse.Namespace, out: Path) -> list[str]:
    """Return the table of throughput against a plain Flower app."""
    compute = {"workers": given.workers}
    fleet = with_(load_config(FLEET), rounds=given.rounds_ours, compute=compute)
    groups = [{**group, "budget": None} for group in fleet.model_dump(mode="json")["groups"]]
    vanilla = with_(fleet, groups=groups, method={"name": "vanilla", "centered": False})
    runs = {"fed_asi, budgets (the cifar10 fleet)": fleet, "fed_asi, the same layers whole": vanilla}
    rows, measured = [], {}
    for number, (name, config) in enumerate(runs.items()):
        seconds, _, _ = ours(out / f"ours-{number}", config)
        measured[name] = (
            seconds_of_rounds(out / f"ours-{number}"),
            seconds,
            _accuracy(out / f"ours-{number}", given),
        )
    _write_shards(out / "ours-0", out / "shards.npz", fleet)
    environment = {**os.environ, **QUIET, "PLAIN_SHARDS": str(out / "shards.npz"), "PYTHONPATH": str(ROOT)}
    script = Path(__file__).with_name("plain_flower.py")
    arguments = [str(out / "plain.json"), str(given.rounds), str(fleet.num_devices), str(fleet.cohort)]
    command = [sys.executable, str(script), *arguments, str(given.workers)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    plain = json.loads((out / "plain.json").read_text())
    each = statistics.median(plain["rounds"][1:])
    whole = plain["seconds"] + (20 - given.rounds) * each
    rows.append(_row("plain Flower", each, fleet.cohort, 1.0, whole, 1.0, plain["accuracy"]))
    for number, (name, (rounds, seconds, accuracy)) in enumerate(measured.items()):
        own = statistics.median(rounds)
        total = seconds + (20 - given.rounds_ours) * own
        rows.append(_row(name, own, fleet.cohort, each / own, total, whole / total, accuracy))
        rows[-1] += f" {efficiency(out / f'ours-{number}', given.workers):.2f} |"
    rows[0] += " |"
    head = (
        "| | s a round (median, from the 2nd) | client-rounds/s | times plain | 20 rounds end to end, s "
        f"| times plain | accuracy after round {given.rounds} | wall / (busy / workers) |"
    )
    return [head, "|---|---|---|---|---|---|---|---|", *rows]


def _row(
    name: str, each: float, cohort: int, times: float, whole: float, faster: float, accuracy: float
) -> str:
    cells = [f"{each:.2f}", f"{cohort / each:.2f}", f"{times:.1f}", f"{whole:.0f}", f"{faster:.1f}"]
    return f"| {name} | {' | '.join(cells)} | {100 * accuracy:.1f} % |"


def _accuracy(folder: Path, given: argparse.Namespace) -> float:
    with RunStore.read(folder) as store:
        return next(r.accuracy or 0.0 for r in store.rounds() if r.round == given.rounds)


def _write_shards(run: Path, path: Path, config: RunConfig) -> None:
    """Write each device's training rows, as rows of x_train."""
    from fed_asi.workplace import open_workplace

    place = open_workplace(run / "workplace")
    rows = data.load("cifar10").split(config.data.public, config.data.validation, config.seed).train
    np.savez(path, **{str(p): rows[place.shard(p).train] for p in range(config.num_devices)})


def by_scale(given: argparse.Namespace, out: Path) -> list[str]:
    """Return the table of fleets of growing size on tiny local work, where overhead is all there is."""
    base = load_config(ROOT / "experiments" / "fleets" / "demo.toml")
    rows = []
    for devices in given.devices:
        cohort = min(devices, 50)
        group = {"name": "all", "count": devices, "budget": None, "batch_size": 32}
        config = with_(
            base,
            name=f"scale-{devices}",
            rounds=6,
            cohort=cohort,
            groups=[group],
            model={"weights": "none"},
            data={"source": "cifar10", "public": 256, "limit": 20_000, "test_limit": 256, "holdout": 0.0},
            sharding={"scheme": "iid", "minimum": 1},
            method={"name": "head", "methods": None},
            compute={"workers": given.workers},
        )
        folder = out / f"scale-{devices}"
        seconds, mebibytes, server = ours(folder, config)
        rounds = seconds_of_rounds(folder)
        with RunStore.read(folder) as store:
            busy = [r.host_seconds or 0.0 for r in store.device_rounds() if r.round >= 2]
        idle = sum(rounds) - sum(busy) / given.workers
        size = (folder / "run.sqlite").stat().st_size / 1024
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "fed_asi.cli", "report", str(folder)], check=True, capture_output=True
        )
        report = time.perf_counter() - started
        rows.append(
            f"| {devices:,} | {cohort} | {seconds:.0f} | {statistics.median(rounds):.2f} "
            f"| {1000 * idle / len(busy):.1f} | {1000 * server / cohort:.1f} "
            f"| {mebibytes:.0f} | {size:.0f} | {report:.1f} |"
        )
        print(rows[-1], flush=True)
    head = (
        "| devices | cohort | whole run of 6 rounds, s | round, s (median from the 2nd) "
        "| overhead beyond training, ms a device-round | server's CPU, ms a device-round "
        "| server's peak, MiB | run.sqlite, KiB | report, s |"
    )
    return [head, "|---|---|---|---|---|---|---|---|---|", *rows]


def on_cluster(_given: argparse.Namespace, out: Path) -> list[str]:
    """Return whether a fleet on two Ray nodes on loopback ends with the bits of one on this machine alone."""
    config = load_config(ROOT / "experiments" / "fleets" / "demo.toml")
    ours(out / "alone", config)
    head = ["--head", "--port=6399", "--include-dashboard=false"]
    with ray_node(head), ray_node(["--address=127.0.0.1:6399"]):
        time.sleep(10)
        seconds, _, _ = ours(out / "cluster", with_(config, compute={"ray_address": "127.0.0.1:6399"}))
    hashes = []
    for name in ("alone", "cluster"):
        with RunStore.read(out / name) as store:
            hashes.append(store.run().weights_sha256)
    same = "equal to the bit" if hashes[0] == hashes[1] else "DIFFERENT"
    return [f"two Ray nodes on loopback, 2 CPUs each: {seconds:.0f} s, weights {same}"]


@contextlib.contextmanager
def ray_node(arguments: list[str]) -> Iterator[None]:
    """Run one Ray node in a session of its own, and end that session."""
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2", *arguments]
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT)}
    node = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(5)
        yield
    finally:
        kill_session(node)


def main() -> int:
    """Run one table; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=("plain", "scale", "cluster"))
    parser.add_argument("--rounds", type=int, default=4, help="of the plain app; it is slow")
    parser.add_argument("--rounds-ours", type=int, default=20)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--devices", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--features", help="an existing store; without it, building one is part of the time")
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    tables = {"plain": against_plain, "scale": by_scale, "cluster": on_cluster}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["FED_ASI_FEATURES_DIR"] = given.features or f"{temporary}/features"
        lines = tables[given.table](given, Path(temporary))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    lines += [
        "",
        f"{given.workers} workers; largest process {peak:.0f} MiB; command: `python {' '.join(sys.argv)}`",
    ]
    print("\n".join(lines))
    if given.log:
        with given.log.open("a") as log:
            log.write("\n".join(["", *lines, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
