"""Tables of a fleet's start: what comes before round 1, and whose features it needs."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from fleet_runs import FLEET, IMAGES, ROOT, scaled, with_

from fed_asi import data
from fed_asi.fleets.file import load_config
from fed_asi.workplace.needs import needs_of
from fed_asi.workplace.splits import split_images
from fed_asi.workplace.start import shards_of

START = """
import pathlib, resource, sys, time
started = time.perf_counter()
from fed_asi.fleets.config import RunConfig
from fed_asi.flower.simulation import run_flower
from fed_asi.results.progress import Unwatched
class UntilRound1(Unwatched):
    def round_started(self, round, rounds, asked):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(time.perf_counter() - started, time.process_time(), peak / 1024, flush=True)
        raise KeyboardInterrupt
folder = pathlib.Path(sys.argv[1])
config = RunConfig.from_json((folder.parent / f"{folder.name}.json").read_text())
try:
    run_flower(config, folder, watcher=UntilRound1())
except BaseException as error:
    print(type(error).__name__)
"""


def starts(given: argparse.Namespace, out: Path) -> list[str]:
    """Return the table of the time before round 1, by number of devices; all fleets have the same images.

    The first row's fleet is run twice: the first run computes the features.
    """
    rows, first = [], None
    for number, devices in enumerate([given.devices[0], *given.devices]):
        config = scaled(devices, min(devices, 50), IMAGES, given.workers)
        folder = out / f"start-{number}"
        (out / f"{folder.name}.json").write_text(config.to_json())
        command = [sys.executable, "-c", START, str(folder)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        found = next(line.split() for line in done.stdout.splitlines() if len(line.split()) == 3)
        seconds, busy, mebibytes = (float(word) for word in found)
        if number == 0:
            continue
        first = first or (devices, busy, mebibytes)
        each, more = "- | -", devices - first[0]
        if more:
            kib = 1024 * (mebibytes - first[2]) / more
            each = f"{1000 * (busy - first[1]) / more:.2f} | {kib:.1f}"
        rows.append(f"| {devices:,} | {seconds:.1f} | {busy:.1f} | {mebibytes:.0f} | {each} |")
        print(rows[-1], flush=True)
    head = (
        "| devices | before round 1, s | server's CPU, s | server's peak, MiB "
        "| CPU a device beyond the first row, ms | memory, KiB |"
    )
    return [head, "|---|---|---|---|---|---|", *rows]


def needs(_given: argparse.Namespace, _out: Path) -> list[str]:
    """Return a table of the number of images whose features the cifar10 fleet needs, by the number of rounds."""
    fleet = load_config(FLEET)
    splits = split_images(fleet, data.load(fleet.data.source))
    shards = shards_of(fleet, splits)
    rows = [
        '| rounds | before round 1 | in all | with `measure.groups = "never"` | training images |',
        "|---|---|---|---|---|",
    ]
    for rounds in (5, 10, 20, 50):
        found = needs_of(with_(fleet, rounds=rounds), shards)
        devices_alone = needs_of(with_(fleet, rounds=rounds, measure={"groups": "never"}), shards)
        counts = (len(found.first), len(found.rows), len(devices_alone.rows), len(shards.indices))
        rows.append(f"| {rounds} | {' | '.join(f'{count:,}' for count in counts)} |")
    return rows
