"""Gradient accumulators in int8: the error of the sum after 128 micro-batches of one image.

    python experiments/benchmarks/int8_accumulators.py --data-dir DATA --weights-dir WEIGHTS

MCUNet, ImageNet weights, the last 4 convolutions and the head, CIFAR-10 at 128x128. Each micro-batch's gradient is
added to the dequantised accumulator, which is then quantised again, with one scale per row.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import compress_, data, models, tune_last_
from fed_asi.compression.cut import cut
from fed_asi.data.images import to_batch
from fed_asi.methods import Vanilla
from fed_asi.training.steps import training_mode_

IMAGES = 128
Round = Callable[[Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--weights-dir", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    tail, x, y = network(chosen.data_dir, chosen.weights_dir)
    weights = {n: p for n, p in tail.named_parameters() if p.requires_grad and p.dim() > 1}
    parts = [gradients(tail, weights, x[i : i + 1], y[i : i + 1]) for i in range(IMAGES)]
    draws = torch.Generator().manual_seed(0)
    ways: dict[str, Round] = {
        "int8, nearest": int8(torch.round),
        "int8, stochastic": int8(lambda u: torch.floor(u + torch.rand(u.shape, generator=draws))),
        "bfloat16": lambda total: total.bfloat16().float(),
    }
    print("| accumulator | " + " | ".join(f"`{name.removesuffix('.weight')}`" for name in weights) + " |")
    print("|---" * (1 + len(weights)) + "|")
    for name, rounded in ways.items():
        found = [error([part[w] for part in parts], rounded) for w in weights]
        print(f"| {name} | " + " | ".join(f"{one:.3f}" for one in found) + " |")
    whole = sum(p.numel() for p in weights.values())
    rows = sum(len(p) for p in weights.values())
    print(f"\n{4 * whole / 1024:.0f} KiB in float32, {(whole + 4 * rows) / 1024:.0f} KiB in int8.")


def network(data_dir: Path, weights_dir: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """Return the trained tail, the trunk's features of 128 images, and their labels."""
    dataset = data.load("cifar10", data_dir)
    model = models.build("mcunet", 10, "imagenet", 128, weights_dir=weights_dir)
    trained = tune_last_(model, 4)
    x = to_batch(np.asarray(dataset.x_train[:IMAGES]), 128, *models.normalisation("mcunet"))
    trunk, tail = cut(model, trained, x[:1])
    with torch.no_grad():
        features = trunk(x).clone()
    training_mode_(tail)
    compress_(tail, Vanilla())
    return tail, features, torch.from_numpy(np.asarray(dataset.y_train[:IMAGES])).long()


def gradients(tail: nn.Module, weights: dict[str, nn.Parameter], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return one micro-batch's share of every weight's gradient, with a row per output channel."""
    tail.zero_grad()
    torch.autograd.backward(F.cross_entropy(tail(x.clone()), y) / IMAGES)
    return {name: p.grad.detach().flatten(1).clone() for name, p in weights.items() if p.grad is not None}


def int8(to_integer: Round) -> Round:
    """Return a function that rounds a matrix to 255 levels per row."""

    def rounded(total: Tensor) -> Tensor:
        scale = total.abs().amax(1, keepdim=True).clamp_min(1e-20) / 127
        return to_integer(total / scale).clamp(-127, 127) * scale

    return rounded


def error(parts: list[Tensor], rounded: Round) -> float:
    """Return ||accumulated - exact|| / ||exact||."""
    exact = torch.stack(parts).double().sum(0)
    total = torch.zeros_like(parts[0])
    for part in parts:
        total = rounded(total + part)
    return float((total.double() - exact).norm() / exact.norm())


if __name__ == "__main__":
    main()
