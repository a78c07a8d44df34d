"""A GPU compared with the CPU: whether gradients and counted bytes are the same, the GPU's peak, and its speed.

    python experiments/benchmarks/gpu.py                            # on cuda:0, three to five minutes
    python experiments/benchmarks/gpu.py --device cpu --tiny        # tests the script itself, on any machine
    ... --parts gradients,peak --markdown docs/results/gpu.md --json gpu.json

It needs the package and torch, but no data or weights, and neither Flower nor Ray. The exit code is 1 if a check fails:
a gradient is off by more than 1e-4 of its norm (1e-3 under methods that round), a counted byte differs, or a step makes
the host wait.

`gradients` compares one step of every method, and its counted bytes, with the CPU. `waits` runs steps while torch
refuses everything that waits for the GPU. `peak` compares the allocator's peak in a step with the arena's count.
`steps` and `micro` are ratios to plain PyTorch, medians of interleaved steps. `round` trains 32 devices of a fleet,
several at a time, each in its own process.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kernels import beside, compressed, in_turns, medians, step_of
from torch import Tensor, nn

from fed_asi import data, models
from fed_asi.compression.compress import compress_
from fed_asi.compression.cut import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.data.dataset import Dataset
from fed_asi.devices.job import Job
from fed_asi.devices.work import train_locally
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.fleet import build
from fed_asi.gpus import GPU, device_named, exact, gpus_here, lacking
from fed_asi.memory.arena.planned import arena
from fed_asi.memory.meter import ActivationMeter
from fed_asi.memory.peak import StepMeter
from fed_asi.methods import ASI, HOSVD, BiasOnly, FixedSubspace, GradientFilter, Method, Quantized, Vanilla
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper, training_mode_
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.prepare import prepare

TOLERANCE = 1e-4
ROUNDED = 1e-3  # under a method that rounds, a number at the border of two levels may take the other one
METHODS: dict[str, Method] = {
    "whole": Vanilla(),
    "8 bits": Quantized(8),
    "4 bits": Quantized(4),
    "ASI, warm": ASI((4, 8, 3, 3)),
    "ASI, cold": ASI((4, 8, 3, 3), warm=False),
    "ASI, in 8 bits": ASI((4, 8, 3, 3), bits=8),
    "ASI, published": ASI((4, 8, 3, 3), order="published"),
    "HOSVD": HOSVD(0.8),
    "fixed subspace": FixedSubspace(0.7),
    "gradient filter": GradientFilter(2),
    "biases": BiasOnly(),
}
RANKS = (8, 8, 3, 3)
DEVICES = 32  # in the fleet; all of them train in a round
Row = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    networks: tuple[str, ...]
    resolution: int
    batches: tuple[int, ...]
    micro_batches: int
    images: int
    at_once: tuple[int, ...]
    seconds: float


FULL = Size(("mcunet", "mobilenet_v2", "resnet18"), 128, (16, 64, 128), 64, 64, (1, 8, 32), 3.0)
TINY = Size(("tiny",), 32, (4,), 4, 8, (1, 2), 0.0)


def tails(size: Size) -> Iterator[tuple[str, nn.Module, torch.Size]]:
    """Yield each network's tail with its last four convolutions trained, and the shape of one of its inputs."""
    for name in size.networks:
        model = models.build(name, 10, weights=None, resolution=size.resolution, seed=0).eval()
        images = torch.zeros(1, 3, size.resolution, size.resolution)
        trunk, tail = cut(model, tune_last_(model, 4), images, latest=True)
        with torch.no_grad():
            shape = trunk(images).shape[1:]
        yield name, tail, shape


def batch_of(count: int, shape: torch.Size, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return inputs of a tail and labels, with the same numbers on every device."""
    draws = torch.Generator().manual_seed(1)
    x, y = torch.randn(count, *shape, generator=draws).relu_(), torch.arange(count) % 10
    return x.to(device, memory_format=torch.channels_last), y.to(device)


def one_step(
    tail: nn.Module, method: Method, x: Tensor, y: Tensor, device: torch.device
) -> tuple[Tensor, int]:
    """Return all gradients of a step as one vector on the CPU, and the bytes that the step kept."""
    ours = copy.deepcopy(tail).to(device)
    compress_(ours, method, seed=0)
    training_mode_(ours)
    with ActivationMeter(ours) as meter:
        loss = nn.functional.cross_entropy(ours(x), y)
    loss.backward()
    return torch.cat(
        [p.grad.flatten().cpu() for p in ours.parameters() if p.grad is not None]
    ), meter.saved_bytes


def gradients(size: Size, device: torch.device) -> Iterator[Row]:
    """Yield, for every network and method, the gradients' relative error, and the bytes counted on both."""
    for name, tail, shape in tails(size):
        here, there = (batch_of(8, shape, where) for where in (torch.device("cpu"), device))
        for label, method in METHODS.items():
            wanted, counted = one_step(tail, method, *here, torch.device("cpu"))
            found, kept = one_step(tail, method, *there, device)
            off = float((found - wanted).norm() / wanted.norm())
            yield {
                "network": name, "method": label, "off by": off, "bytes": kept, "bytes on the CPU": counted,
                "holds": off < (ROUNDED if "bits" in label else TOLERANCE) and kept == counted,
            }  # fmt: skip


def stepper_of(tail: nn.Module, method: Method, device: torch.device) -> Stepper:
    """Return a device's stepper on a compressed copy of a tail."""
    ours = copy.deepcopy(tail).to(device)
    compress_(ours, method, seed=0)
    training_mode_(ours)
    optimizer = Sgd(ours.named_parameters(), momentum=0.9, weight_decay=1e-4, clip_norm=2.0)
    return Stepper(ours, optimizer, micro_batch=8, budget_bytes=1 << 40)


def waits(size: Size, device: torch.device) -> Iterator[Row]:
    """Yield, for every network and method, whether steps succeed while nothing may wait for the GPU."""
    for name, tail, shape in tails(size):
        for label, method in METHODS.items():
            stepper, batch = stepper_of(tail, method, device), batch_of(8, shape, device)
            stepper.step_(*batch, 0.01)  # the first step creates what is kept on the device
            said = ""
            try:
                if device.type == GPU:
                    torch.cuda.set_sync_debug_mode("error")
                for _ in range(2):
                    stepper.step_(*batch, 0.01)
            except RuntimeError as error:
                said = str(error).splitlines()[0]
            finally:
                if device.type == GPU:
                    torch.cuda.set_sync_debug_mode("default")
            needed = isinstance(method, HOSVD)  # its ranks depend on the data
            yield {"network": name, "method": label, "waits": said or "no", "holds": needed or not said}


def peak(size: Size, device: torch.device) -> Iterator[Row]:
    """Yield the most bytes that a step holds at any time: by the allocator, and as counted."""
    for name, tail, shape in tails(size):
        for label in ("whole", "8 bits", "ASI, cold", "biases"):
            ours = copy.deepcopy(tail).to(device)
            compress_(ours, METHODS[label], seed=0)
            training_mode_(ours)
            x, y = batch_of(8, shape, device)
            step = step_of(ours, x, y)
            step()
            for parameter in ours.parameters():
                parameter.grad = None
            with StepMeter(device) as meter:
                step()
            counted = arena(ours, x, y).lower_bound_bytes
            ratio = meter.peak_bytes / counted
            yield {
                "network": name,
                "method": label,
                "peak": meter.peak_bytes,
                "counted": counted,
                "ratio": ratio,
            }


def steps(size: Size, device: torch.device) -> Iterator[Row]:
    """Yield the milliseconds of a step, plain PyTorch's and ours, by batch size."""
    for name, tail, shape in tails(size):
        for count in size.batches:
            x, y = batch_of(count, shape, device)
            plain = copy.deepcopy(tail).to(device).eval().to(memory_format=torch.channels_last)
            ours = {label: compressed(tail.to(device), method) for label, method in timed().items()}
            runs = {"plain": step_of(plain, x, y)} | {n: step_of(one, x, y) for n, one in ours.items()}
            found = medians(runs, size.seconds, device.type)
            ratios = {f"{label} / plain": found[label] / found["plain"] for label in ours}
            yield {"network": name, "batch": count, **{f"{n}, ms": ms for n, ms in found.items()}, **ratios}


def timed() -> dict[str, Method]:
    """Return the methods whose steps are timed."""
    return {"ASI": ASI(RANKS), "8 bits": Quantized(8)}


def micro(size: Size, device: torch.device) -> Iterator[Row]:
    """Yield the milliseconds of many micro-batches of one image, side by side and one after another."""
    for name, tail, shape in tails(size):
        x, y = batch_of(size.micro_batches, shape, device)
        method, there = ASI((1, 8, 3, 3)), tail.to(device)
        runs = {
            "side by side": step_of(beside(there, method, 1), x, y),
            "one by one": in_turns(compressed(there, method), x.split(1), y.split(1)),
        }
        found = medians(runs, size.seconds, device.type)
        faster = found["one by one"] / found["side by side"]
        cells = {f"{label}, ms": ms for label, ms in found.items()}
        yield {"network": name, "micro-batches": len(y), **cells, "times faster": faster}


def noise(images: int) -> Dataset:
    """Return images of noise for every device of the fleet: time does not depend on what they show."""
    rng, count = np.random.default_rng(0), DEVICES * images + 128
    x = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
    y = np.arange(count) % 10
    return Dataset("noise", x, y, x[:64], y[:64], tuple(map(str, range(10))), "noise")


def fleet_of(size: Size, device: torch.device) -> RunConfig:
    """Return a fleet of 32 devices with a budget that requires compression."""
    group = {"name": "all", "count": DEVICES, "budget": "64 KiB", "batch_size": 16}
    name = size.networks[0]
    settings = {
        "name": "gpu", "rounds": 1, "cohort": DEVICES, "groups": [group],
        "model": {"name": name, "weights": "none", "resolution": size.resolution},
        "data": {"source": "noise", "public": 64, "holdout": 0.0},
        "sharding": {"scheme": "iid"}, "method": {"layers": 4, "calibration_images": 16},
        "compute": {"backend": "loop", "device": str(device)},
    }  # fmt: skip
    return RunConfig.model_validate(settings)


def fleet_round(size: Size, device: torch.device) -> Iterator[Row]:
    """Yield the seconds of a round of 32 devices, several at a time, each in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FED_ASI_FEATURES_DIR"] = str(Path(folder) / "features")
        data.register("noise", lambda *_: noise(size.images))
        place = Path(folder) / "workplace"
        prepare(fleet_of(size, device), place)
        alone = 0.0
        for count in size.at_once:
            seconds, trained = _round(place, count)
            alone = alone or seconds
            found = {"at a time": count, "seconds": seconds, "times faster": alone / seconds}
            yield {**found, "trained": trained, "holds": trained == DEVICES}


def _round(folder: Path, count: int) -> tuple[float, int]:
    """Return the seconds of a round and how many devices trained; every process has trained one device before."""
    context = multiprocessing.get_context("spawn")
    waiting, done = context.Queue(), context.Queue()
    processes = [
        context.Process(target=_work, args=(folder, waiting, done), daemon=True) for _ in range(count)
    ]
    for process in processes:
        process.start()
    try:
        for _ in processes:
            waiting.put(0)
        for _ in processes:
            done.get(timeout=240)
        started = time.perf_counter()
        for partition_id in range(DEVICES):
            waiting.put(partition_id)
        outcomes = [done.get(timeout=240) for _ in range(DEVICES)]
        return time.perf_counter() - started, outcomes.count("trained")
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(folder: Path, waiting: Any, done: Any) -> None:
    """Train one device after another."""
    torch.set_num_threads(1)
    place = open_workplace(folder)
    fleet = {one.partition_id: one.resources for one in build(place.config)}
    while True:
        partition_id = waiting.get()
        job = Job(1, partition_id, fleet[partition_id], 0.05)
        with exact(place.device):
            done.put(train_locally(place, job, place.reference).stats["outcome"])


PARTS = {
    "gradients": gradients, "waits": waits, "peak": peak, "steps": steps, "micro": micro, "round": fleet_round,
}  # fmt: skip


def _rows(part: str, size: Size, device: torch.device) -> list[Row]:
    """Return a part's rows. One that breaks is a row that does not hold: the GPU may be lent for minutes."""
    rows: list[Row] = []
    try:
        rows.extend(PARTS[part](size, device))
    except Exception as error:
        traceback.print_exc()
        rows = [{"rows before it": len(rows), "broke": repr(error).splitlines()[0], "holds": False}]
    return rows


def table(rows: list[Row]) -> str:
    """Return rows as Markdown."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(map(_cell, row.values())) + " |" for row in rows)])


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < value < 1e-2 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def about(device: torch.device) -> Row:
    """Return what the figures were measured on."""
    card = (
        str(gpus_here()[device.index]) if device.type == GPU else platform.processor() or platform.machine()
    )
    return {"device": card, "torch": torch.__version__, "python": platform.python_version()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a small network and few repeats: does it work?")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--markdown", type=Path, help="also append the tables to this file")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args()
    problem = lacking(given.device)
    if problem is not None:
        parser.error(f"--device {problem}")
    device, size = device_named(given.device), TINY if given.tiny else FULL
    torch.set_num_threads(1)
    found: dict[str, list[Row]] = {"about": [about(device)]}
    for part in given.parts.split(","):
        started = time.perf_counter()
        with exact(device):
            found[part] = _rows(part, size, device)
        print(f"\n{part}, {time.perf_counter() - started:.0f} s\n\n{table(found[part])}", flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1))
    if given.markdown:
        texts = [f"## {part}\n\n{table(rows)}\n" for part, rows in found.items()]
        with given.markdown.open("a") as file:
            file.write("\n".join([f"\n`python {' '.join(sys.argv)}`\n", *texts]))
    failed = [row for rows in found.values() for row in rows if not row.get("holds", True)]
    print(f"\n{len(failed)} that do not hold" if failed else "\nall of it holds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
