"""Tables of a fleet's rounds: against a plain Flower app, where a round goes, by size of the fleet, on a cluster."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fleet_runs import (
    FLEET,
    IMAGES,
    ROOT,
    Parts,
    ours,
    parts,
    parts_table,
    python_path,
    scaled,
    seconds_of_rounds,
    with_,
)
from kill_test import kill_session

from fed_asi import data
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.flower.environment import QUIET
from fed_asi.results.store import RunStore

STORED_ROUNDS = 10  # of a run whose features are stored
IMAGES_EACH = 8  # of a device by scale: the same work in every row, as long as there are enough images


def against_plain(given: argparse.Namespace, out: Path) -> list[str]:
    """Return the table of throughput against a plain Flower app; every run builds its own feature store."""
    measured = _measured(given, out)
    fleet = _settings(given)[FIRST]
    _write_shards(out / "ours-0", out / "shards.npz", fleet)
    plain = _plain(out, fleet, given)
    each, every = statistics.median(plain["training"][1:]), statistics.median(plain["rounds"][1:])
    rows = [
        f"| plain Flower, training alone | {each:.2f} | {fleet.cohort / each:.2f} | 1.0 | - | - | - | - | - |",
        f"| plain Flower, the whole round | {every:.2f} | {fleet.cohort / every:.2f} | - "
        f"| - | {plain['seconds']:.0f} | 1.0 | {100 * plain['accuracy'][-1]:.1f} % | - |",
    ]
    for name, one in measured.items():
        own = statistics.median(one.rounds)
        rows.append(
            f"| {name} | {own:.2f} | {fleet.cohort / own:.2f} | {each / own:.1f} ({every / own:.1f}) "
            f"| {one.first_rounds:.2f} | {one.seconds:.0f} | {plain['seconds'] / one.seconds:.1f} "
            f"| {100 * one.accuracy:.1f} % | {one.parts.efficiency:.2f} |"
        )
    head = (
        "| | s a round (median, from the 2nd) | client-rounds/s | times plain (times its whole round) "
        f"| s a round while features are computed | {given.rounds} rounds end to end, s | times plain "
        f"| accuracy after round {given.rounds} | wall of rounds 2 to 7 / (their training alone / workers) |"
    )
    table = [head, "|---|---|---|---|---|---|---|---|---|", *rows]
    return table + parts_table({name: one.parts for name, one in measured.items()})


def alone(given: argparse.Namespace, out: Path) -> list[str]:
    """Return our rows of that table, without the plain app."""
    measured = _measured(given, out)
    rows = [
        f"| {name} | {statistics.median(one.rounds):.2f} | {one.first_rounds:.2f} | {one.seconds:.0f} "
        f"| {100 * one.accuracy:.1f} % | {one.parts.efficiency:.2f} |"
        for name, one in measured.items()
    ]
    head = (
        "| | s a round (median, from the 2nd) | s a round while features are computed "
        f"| {given.rounds} rounds end to end, s | accuracy "
        "| wall of rounds 2 to 7 / (their training alone / workers) |"
    )
    table = [head, "|---|---|---|---|---|---|", *rows]
    return table + parts_table({name: one.parts for name, one in measured.items()})


@dataclass(frozen=True, slots=True)
class Measured:
    """A run that builds its own feature store, and a shorter one after it whose features are stored.

    rounds, parts: of the second; a round of the first shares the cores with what computes features. first_rounds: the
    median of its rounds. seconds, accuracy: of the first, from the first import to the end.
    """

    rounds: list[float]
    parts: Parts
    first_rounds: float
    seconds: float
    accuracy: float


FIRST = "budgets (the cifar10 fleet)"


def _settings(given: argparse.Namespace) -> dict[str, RunConfig]:
    """Return the cifar10 fleet with its budgets, with quicker plans and, if it is installed, trunk, and without."""
    fleet = with_(load_config(FLEET), rounds=given.rounds, compute={"workers": given.workers})
    groups = fleet.model_dump(mode="json")["groups"]
    fast, name = (
        with_(fleet, groups=[{**one, "quicker": True} for one in groups]),
        "budgets, `quicker = true`",
    )
    if importlib.util.find_spec("onnxruntime") is not None:
        fast, name = (
            with_(fast, compute={"trunk_engine": "onnxruntime"}),
            f"{name}, ONNX Runtime for the trunk",
        )
    unlimited = [{**one, "budget": None} for one in groups]
    whole = with_(fleet, groups=unlimited, method={"name": "vanilla", "centered": False})
    return {FIRST: fleet, name: fast, "the same layers whole": whole}


def _measured(given: argparse.Namespace, out: Path) -> dict[str, Measured]:
    """Run the cifar10 fleet with each of these settings, and return what was measured."""
    return {
        name: _ours(out / f"ours-{number}", config, given)
        for number, (name, config) in enumerate(_settings(given).items())
    }


def _ours(folder: Path, config: RunConfig, given: argparse.Namespace) -> Measured:
    """Do both runs of these settings."""
    if not given.features:
        os.environ["FED_ASI_FEATURES_DIR"] = str(folder.parent / f"features-{folder.name}")
    seconds, _, _ = ours(folder, config)
    with RunStore.read(folder) as store:
        accuracy = store.rounds()[-1].accuracy or 0.0
    stored = folder.parent / f"{folder.name}-stored"
    ours(stored, with_(config, rounds=min(config.rounds, STORED_ROUNDS)))
    first = statistics.median(seconds_of_rounds(folder))
    found = Measured(seconds_of_rounds(stored), parts(stored, given.workers), first, seconds, accuracy)
    print(folder.name, found, flush=True)
    return found


def _plain(out: Path, fleet: RunConfig, given: argparse.Namespace) -> dict[str, Any]:
    """Return what the plain app measured about itself."""
    environment = {
        **os.environ,
        **QUIET,
        "FLWR_HOME": str(out / "flower"),
        "PLAIN_SHARDS": str(out / "shards.npz"),
        "PYTHONPATH": python_path(),
    }
    script = Path(__file__).with_name("plain_flower.py")
    numbers = [given.rounds, fleet.num_devices, fleet.cohort, given.workers]
    command = [sys.executable, str(script), str(out / "plain.json"), *map(str, numbers)]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    found: dict[str, Any] = {**json.loads((out / "plain.json").read_text()), "seconds": seconds}
    print(json.dumps(found), flush=True)
    return found


def _write_shards(run: Path, path: Path, config: RunConfig) -> None:
    """Write each device's rows of x_train: those for training, and those for evaluation."""
    from fed_asi.workplace.features_again import Sources
    from fed_asi.workplace.opening import open_workplace

    place = open_workplace(run / "workplace", opened=Sources.open_rows)
    rows = data.load("cifar10").split(config.data.public, config.data.validation, config.seed).train
    found = {}
    for p in range(config.num_devices):
        found[str(p)], found[f"{p}-holdout"] = rows[place.shard(p).train], rows[place.shard(p).holdout]
    np.savez(path, **found)


def by_scale(given: argparse.Namespace, out: Path) -> list[str]:
    """Return the table of fleets of growing size with tiny local work, where overhead dominates."""
    rows = []
    for devices in given.devices:
        cohort = min(devices, 50)
        config = scaled(devices, cohort, min(IMAGES_EACH * devices, IMAGES), given.workers)
        folder = out / f"scale-{devices}"
        seconds, mebibytes, server = ours(folder, config)
        rounds = seconds_of_rounds(folder)
        with RunStore.read(folder) as store:
            later = [row for row in store.device_rounds() if row.round >= 2]
        busy = [row.host_seconds or 0.0 for row in later]
        down, up = (
            statistics.mean(getattr(row, name) or 0 for row in later) for name in ("bytes_down", "bytes_up")
        )
        idle = sum(rounds) - sum(busy) / given.workers
        size = (folder / "run.sqlite").stat().st_size / 1024
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "fed_asi", "report", str(folder)], check=True, capture_output=True
        )
        report = time.perf_counter() - started
        rows.append(
            f"| {devices:,} | {cohort} | {seconds:.0f} | {statistics.median(rounds):.2f} "
            f"| {1000 * idle / len(busy):.1f} | {1000 * server / cohort:.1f} | {down:,.0f} | {up:,.0f} "
            f"| {mebibytes:.0f} | {size:.0f} | {report:.1f} |"
        )
        print(rows[-1], flush=True)
    head = (
        "| devices | cohort | whole run of 6 rounds, s | round, s (median from the 2nd) "
        "| overhead beyond training, ms a device-round | server's CPU, ms a device-round "
        "| bytes down a device-round | bytes up "
        "| server's peak, MiB | run.sqlite, KiB | report, s |"
    )
    return [head, "|---|---|---|---|---|---|---|---|---|---|---|", *rows]


def on_cluster(_given: argparse.Namespace, out: Path) -> list[str]:
    """Return whether a fleet on two Ray nodes on loopback gives the same bits as on this machine alone."""
    config = load_config(ROOT / "experiments" / "fleets" / "demo.toml")
    ours(out / "alone", config)
    os.environ["FED_ASI_WORKPLACE_DIR"] = str(out / "workplaces")  # decides whether a machine finds it
    other = {f"FED_ASI_{name}_DIR": str(out / "other" / name) for name in ("WORKPLACE", "FEATURES", "NODE")}
    head = ["--head", "--port=6399", "--include-dashboard=false"]
    with ray_node(head, {}), ray_node(["--address=127.0.0.1:6399"], other):
        time.sleep(10)
        seconds, _, _ = ours(out / "cluster", with_(config, compute={"ray_address": "127.0.0.1:6399"}))
    hashes = []
    for name in ("alone", "cluster"):
        with RunStore.read(out / name) as store:
            hashes.append(store.run().weights_sha256)
    same = "equal to the bit" if hashes[0] == hashes[1] else "DIFFERENT"
    return [f"two Ray nodes on loopback, 2 CPUs each, no common folder: {seconds:.0f} s, weights {same}"]


@contextlib.contextmanager
def ray_node(arguments: list[str], changes: Mapping[str, str]) -> Iterator[None]:
    """Run one Ray node in its own session, and end that session afterwards. changes: to its environment."""
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--block", "--node-ip-address=127.0.0.1", "--num-cpus=2", *arguments]
    environment = {**os.environ, **QUIET, "PYTHONPATH": str(ROOT), **changes}
    node = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(5)
        yield
    finally:
        kill_session(node)
