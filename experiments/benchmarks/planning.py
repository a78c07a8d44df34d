"""How long planning takes: the search alone on made-up layers, and the calibration that it starts from.

    python experiments/benchmarks/planning.py --weights-dir WEIGHTS

Search: 42 layers with 64 candidates each at 8 micro-batches; captured gradient and bytes are random, and correlated as
in networks; nine budgets from small to large. Calibration: `profile` of tiny and of MCUNet. Both are processor times of
one thread, so other work on the machine counts little. Neighbour: the whole command, with imports, and one QR of many
small matrices, at torch's own number of threads, alone and while another process keeps a core busy.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fed_asi import models, seeds
from fed_asi.methods import Quantized
from fed_asi.planning.calibration import profile
from fed_asi.planning.profile import Candidate, LayerProfile, ModelFingerprint, Profile
from fed_asi.planning.search import plan
from fed_asi.units import format_bytes

LAYERS, CANDIDATES, MICRO_BATCHES = 42, 64, tuple(2**power for power in range(8))
BUDGETS = tuple(4096 * 2**power for power in range(9))
REPEATS = 3


def made_up_profile(seed: int = 0) -> Profile:
    """Return a profile of LAYERS layers whose captured gradients span orders of magnitude."""
    rng = seeds.rng(seed, "planning")
    layers = tuple(_layer(rng, index) for index in range(LAYERS))
    floors = {b: tuple(512 * b * (LAYERS - i) for i in range(LAYERS)) for b in MICRO_BATCHES}
    return Profile(ModelFingerprint("made up", (3, 32, 32), "float32"), layers, floors, 128)


def _layer(rng: np.random.Generator, index: int) -> LayerProfile:
    scale, bend = rng.lognormal(0, 2), rng.uniform(500, 8000)
    return LayerProfile(
        f"layer{index}", "Conv2d", (1,), index, 1, 1, 1.0, scale, 0.01 * scale, (0.0,),
        {b: tuple(_candidates(rng, b, scale, bend)) for b in MICRO_BATCHES},
        head=index == LAYERS - 1,
    )  # fmt: skip


def _candidates(rng: np.random.Generator, micro_batch: int, scale: float, bend: float) -> Iterator[Candidate]:
    for size in np.sort(rng.integers(1, 5000, CANDIDATES)) * 4:
        noise = rng.normal(0, 0.02 * scale)
        worth = float(scale * (1 - np.exp(-size / bend)) + noise)
        yield Candidate(Quantized(), int(size) * micro_batch, int(size) * micro_batch, 0.0, worth)


def spent(work: Callable[[], object]) -> list[float]:
    """Return the processor seconds of each of REPEATS repetitions, ascending."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return sorted(times)


def search_table() -> str:
    """Return the milliseconds of one `plan` at every budget."""
    made = made_up_profile()
    lines = ["| budget | plan, ms (median of 3) | used |", "|---|---|---|"]
    for budget in BUDGETS:
        times = spent(lambda budget=budget: plan(made, budget, methods=("quantized", "bias")))
        used = plan(made, budget, methods=("quantized", "bias")).planned_bytes / budget
        lines.append(f"| {format_bytes(budget)} | {1000 * times[len(times) // 2]:.0f} | {used:.0%} |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Calibration:
    """One `profile` to time. last: the number of last convolutions, trained with the head; None: every layer."""

    network: str
    pixels: int
    images: int
    last: int | None
    micro_batches: tuple[int, ...]


CALIBRATIONS = (
    Calibration("tiny", 32, 32, None, (1, 4, 16, 32)),
    Calibration("mcunet", 128, 32, 14, (1, 4, 16, 32)),
    Calibration("mcunet", 128, 32, 8, (1, 2, 4, 8, 16, 32)),  # what a device does itself, with floors
    Calibration("mcunet", 128, 128, 14, tuple(2**power for power in range(8))),
)


def calibration_table(weights_dir: Path | None) -> str:
    """Return the processor seconds of `profile` for every entry of CALIBRATIONS."""
    lines = [
        "| network | pixels | images | layers | micro-batches | profile, s |",
        "|---|---|---|---|---|---|",
    ]
    for one in CALIBRATIONS:
        weights = None if one.network == "tiny" else "imagenet"
        model = models.build(one.network, 10, weights, one.pixels, weights_dir=weights_dir)
        convolutions = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)]
        trained = [*convolutions[-one.last :], models.head_name(model)] if one.last else None
        x = torch.randn(one.images, 3, one.pixels, one.pixels, generator=seeds.generator(0, "images"))
        began = time.process_time()
        y = torch.arange(one.images) % 10
        found = profile(model, x, y, trained=trained, micro_batches=one.micro_batches)
        seconds = time.process_time() - began
        sizes = (one.network, one.pixels, one.images, len(found.layers), len(one.micro_batches))
        lines.append(f"| {' | '.join(str(size) for size in sizes)} | {seconds:.1f} |")
    return "\n".join(lines)


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """Keep one core busy inside the block."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


QR = """
import time, torch
from fed_asi import tucker
many = torch.randn(32, 96, 8)
for name, work in (("torch's", lambda: torch.linalg.qr(many)), ("ours", lambda: tucker.orth(many))):
    times = []
    for _ in range(60):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    print(1000 * sorted(times)[30])
"""


def neighbour_table(weights_dir: Path | None) -> str:
    """Return the times of a plan and a QR, alone and beside a busy process, at torch's own number of threads."""
    command = [sys.executable, "-m", "fed_asi", "plan", "--model", "mcunet", "--budget", "16 KiB"]
    command += ["--weights-dir", str(weights_dir)] if weights_dir else []
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    lines = [
        "| | plan, processor s | plan, wall s | torch.linalg.qr, ms | tucker.orth, ms |",
        "|---|---|---|---|---|",
    ]
    for busy in (False, True):
        with neighbour(busy):
            before, began = _children(), time.perf_counter()
            subprocess.run(command, env=free, check=True, stdout=subprocess.DEVNULL)
            cost, wall = _children() - before, time.perf_counter() - began
            done = subprocess.run(
                [sys.executable, "-c", QR], env=free, check=True, capture_output=True, text=True
            )
        torchs, ours = (float(line) for line in done.stdout.split())
        what = "a busy neighbour" if busy else "alone"
        lines.append(f"| {what} | {cost:.1f} | {wall:.1f} | {torchs:.2f} | {ours:.2f} |")
    return "\n".join(lines)


def _children() -> float:
    """Return the processor seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights-dir", type=Path)
    arguments = parser.parse_args(argv)
    folder = arguments.weights_dir
    torch.set_num_threads(1)
    for table in (search_table, partial(calibration_table, folder), partial(neighbour_table, folder)):
        print(table(), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
