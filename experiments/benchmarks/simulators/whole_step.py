"""A training step of the whole network: fed_asi's, with inputs kept whole, beside plain PyTorch's; where its time goes.

    python experiments/benchmarks/simulators/whole_step.py resnet18 32 [--repeats 15] [--rows 20]

Medians of interleaved steps in one process with one thread, in the thread's own processor time, for images with their
channels first and last; then the calls of torch in a step of fed_asi, longest first.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from cifar_networks import NETWORKS
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fed_asi.compression.compress import compress_
from fed_asi.methods import Vanilla
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper, training_mode_

sys.path.insert(0, str(Path(__file__).parents[1]))
from step_profile import profile

LR = 1e-5
Step = Callable[[], object]


def plain(network: nn.Module, x: Tensor, y: Tensor) -> Step:
    """Return a step of plain PyTorch."""
    model = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def ours(network: nn.Module, x: Tensor, y: Tensor) -> Step:
    """Return a step as a device takes it, metered."""
    model = fx.symbolic_trace(copy.deepcopy(network).eval())
    compress_(model, Vanilla(), seed=0)
    training_mode_(model)
    optimizer = Sgd(model.named_parameters())
    stepper = Stepper(model, optimizer, micro_batch=len(y), budget_bytes=None)
    return lambda: stepper.step_(x, y, LR)


def medians(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Return the milliseconds of each step; the first of each does not count."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 1):
        for name, step in steps.items():
            started = time.thread_time()
            step()
            taken[name].append((time.thread_time() - started) * 1e3)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("batch", type=int)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--rows", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = NETWORKS[given.network](10, 32)
    x, y = torch.randn(given.batch, 3, 32, 32), torch.randint(0, 10, (given.batch,))
    last = x.to(memory_format=torch.channels_last)
    steps = {
        "plain, channels first": plain(network, x, y),
        "plain, channels last": plain(network, last, y),
        "fed_asi, channels first": ours(network, x, y),
        "fed_asi, channels last": ours(network, last, y),
    }
    found = medians(steps, given.repeats)
    for name, taken in found.items():
        print(f"{name:24s} {taken:7.1f} ms, {taken / found['plain, channels first']:.2f} of plain")
    calls = profile(steps["fed_asi, channels last"])
    for (name, sizes), (taken, times) in sorted(calls.items(), key=lambda item: -item[1][0])[: given.rows]:
        print(f"{taken:9.0f} us {times:4d} x {name:32s} {sizes}")


if __name__ == "__main__":
    main()
