"""The time that ActivationMeter adds to a training step, relative to the step.

    OMP_NUM_THREADS=1 python experiments/benchmarks/meter_overhead.py

For MCUNet's compressed tail (what local training runs, on the trunk's features) and for the whole MCUNet. "Total" is
the meter of every step of local training (detailed=False, created once), "by layer" that of its first step. Steps with
and without the meter alternate; medians of this thread's time.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import compress_, models, tune_last_
from fed_asi.compression.cut import cut
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import ASI, Method, Vanilla


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | method | batch | step, ms | total, ms | overhead | by layer, ms | overhead |")
    print("|---|---|---|---|---|---|---|---|")
    for part in ("tail", "whole network"):
        for method in (Vanilla(), ASI((4, 8, 3, 3), warm=False)):
            for batch in (1, 16, 128) if part == "tail" else (1, 16):
                row(part, method, batch, chosen.steps)


def row(part: str, method: Method, batch: int, steps: int) -> None:
    """Print one line of the table."""
    model, x, y = made(part, batch)
    compress_(model, method)
    meters = (None, ActivationMeter(model, detailed=False), ActivationMeter(model))
    times: tuple[list[float], ...] = ([], [], [])
    for index in range(steps + 5):
        for found, meter in zip(times, meters, strict=True):
            seconds = step(model, x, y, meter)
            if index >= 5:
                found.append(seconds)
    plain, *metered = (1e3 * statistics.median(found) for found in times)
    shares = " | ".join(f"{one:.2f} | {one / plain - 1:+.1%}" for one in metered)
    print(f"| MCUNet {part} | {method.kind} | {batch} | {plain:.2f} | {shares} |", flush=True)


def made(part: str, batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    """Return this part of MCUNet, with its last 4 convolutions trained at 128x128, and a batch for it."""
    model = models.build("mcunet", 10).train()
    x = torch.randn(batch, 3, 128, 128)
    y = torch.arange(batch) % 10
    tune_last_(model, 4)
    if part == "whole network":
        return model, x, y
    trained = [
        name
        for name, m in model.named_modules()
        if any(p.requires_grad for p in m._parameters.values() if p is not None)
    ]
    trunk, tail = cut(model, trained, x[:1])
    with torch.no_grad():
        features = trunk.eval()(x)
    return tail.train(), features.clone(), y


def step(model: nn.Module, x: Tensor, y: Tensor, meter: ActivationMeter | None) -> float:
    """Return the CPU seconds of one forward and backward pass, to which other processes do not add."""
    start = time.thread_time()
    with meter or contextlib.nullcontext():
        loss = F.cross_entropy(model(x), y)
    loss.backward()
    return time.thread_time() - start


if __name__ == "__main__":
    main()
