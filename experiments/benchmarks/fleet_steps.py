"""How a training step compares with plain PyTorch's at the sizes of a fleet: small images and batches, nothing tuned.

    python experiments/benchmarks/fleet_steps.py [--networks mcunet,mobilenet_v2] [--layers 2,4,8,14] [--batches
    16,32]
    ... [--micro-batches 1,4,16] [--resolution 128] [--seconds 2] [--cpu-time] [--channels-last]

A row is one network, tail and batch: milliseconds of plain PyTorch (eager, batch norm in eval mode), and ratios of the
same step under ASI with micro-batches side by side, at ranks (8, 8, 3, 3), or the micro-batch's size where that is
smaller, computed as a run computes it (`layers.remember_constants_`). "alone" is a single micro-batch of 1 against
plain PyTorch at batch size 1. Inputs are contiguous unless --channels-last is given, and the allocator is the default
one. Times are wall time, medians of interleaved steps in one process with one thread; --cpu-time takes the thread's
processor time instead, for a machine with other work.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time

import torch
from kernels import Step, step_of, tail_of
from torch import Tensor, nn

from fed_asi import layers
from fed_asi.compression.compress import compress_
from fed_asi.methods import ASI

RANKS = (8, 8, 3, 3)


def ours(tail: nn.Module, micro_batch: int) -> nn.Module:
    """Return the tail compressed for micro-batches side by side, in its own memory format."""
    found = copy.deepcopy(tail).train()
    compress_(found, ASI((min(RANKS[0], micro_batch), *RANKS[1:])), seed=0, micro_batch=micro_batch)
    layers.remember_constants_(found)  # as a run does
    return found


def steps_of(tail: nn.Module, x: Tensor, y: Tensor, micro_batches: list[int]) -> dict[str, Step]:
    """Return the steps of a row, by name."""
    steps = {"plain": step_of(copy.deepcopy(tail).eval(), x, y)}
    for size in micro_batches:
        if size <= len(y):
            steps[f"micro-batch {size}"] = step_of(ours(tail, size), x, y)
    steps["plain alone"] = step_of(copy.deepcopy(tail).eval(), x[:1], y[:1])
    steps["alone"] = step_of(ours(tail, 1), x[:1], y[:1])
    return steps


def medians(steps: dict[str, Step], seconds: float, cpu_time: bool) -> dict[str, float]:
    """Return the median milliseconds of each step, interleaved for about `seconds`, at least five times."""
    clock = time.thread_time if cpu_time else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    end = clock() + seconds
    while clock() < end or len(taken["plain"]) < 5:
        for name, step in steps.items():
            began = clock()
            step()
            taken[name].append((clock() - began) * 1e3)
    return {name: statistics.median(values) for name, values in taken.items()}


def ratios(found: dict[str, float]) -> dict[str, float]:
    """Return each step's ratio to plain PyTorch."""
    beside = {name: taken / found["plain"] for name, taken in found.items() if name.startswith("micro")}
    return {**beside, "alone": found["alone"] / found["plain alone"]}


def line(cells: list[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print a row for each network, tail and batch, then means and extremes, as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="mcunet,mobilenet_v2")
    for name, given in (("layers", "2,4,8,14"), ("batches", "16,32"), ("micro-batches", "1,4,16")):
        parser.add_argument(f"--{name}", default=given)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=2.0, help="about how long each line is measured")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--channels-last", action="store_true", help="inputs as a run's features lie")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes, every = [int(size) for size in given.micro_batches.split(",")], []
    for network in given.networks.split(","):
        for convolutions in map(int, given.layers.split(",")):
            tail, shape = tail_of(network, convolutions, given.resolution)
            for batch in map(int, given.batches.split(",")):
                x, y = torch.randn(batch, *shape), torch.randint(0, 10, (batch,))
                x = x.contiguous(memory_format=torch.channels_last) if given.channels_last else x
                found = medians(steps_of(tail, x, y, sizes), given.seconds, given.cpu_time)
                every.append(ratios(found))
                if len(every) == 1:
                    print(line(["", "plain, ms", "plain alone, ms", *every[0]]))
                    print("|---" * (3 + len(every[0])) + "|")
                cells = [f"{network} last {convolutions}, batch {batch}"]
                cells += [f"{found[name]:.1f}" for name in ("plain", "plain alone")]
                print(line(cells + [f"{ratio:.2f}" for ratio in every[-1].values()]), flush=True)
    for text, pick in (("geometric mean", statistics.geometric_mean), ("highest", max)):
        print(line([text, "", ""] + [f"**{pick([one[n] for one in every]):.2f}**" for n in every[0]]))


if __name__ == "__main__":
    main()
