"""What a simulated device's step of one image costs when weights move layer by layer within the backward pass.

    python experiments/benchmarks/image_steps.py [--network mcunet] [--layers 14] [--resolution 128] [--seconds 20]
    ... --profile channels    # where the time of one form goes, by Python function

The steps are a run's own, with the meter (`fed_asi.training.steps.Stepper`); work that a run does once per batch or
less often, such as reading features, is left out. Milliseconds are the thread's processor time: medians of interleaved
steps in one process with one thread. "plain" is a step of plain PyTorch on the same image with all these layers
trained.
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import pstats
import time

import torch
from kernels import Step, medians, tail_of
from torch import Tensor, nn

from fed_asi import layers
from fed_asi.compression.compress import compress_
from fed_asi.methods import BiasOnly, Channels, Method, Vanilla
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper, training_mode_

SHARE = 8  # one in so many of a layer's input channels trains
RATE = 1e-3
BATCH = 16  # images per call of the stepper


def trained_layers(tail: nn.Module) -> dict[str, nn.Module]:
    """Return the convolutions and linear layers that train, by name."""
    kinds = (nn.Conv2d, nn.Linear)
    return {n: m for n, m in tail.named_modules() if isinstance(m, kinds) and m.weight.requires_grad}


def forms_of(tail: nn.Module) -> dict[str, dict[str, Method]]:
    """Return each form's methods for the trained layers; the head is kept whole in all of them."""
    every = trained_layers(tail)
    head = {name: Vanilla() for name, module in every.items() if isinstance(module, nn.Linear)}
    inputs = {n: m.in_channels for n, m in every.items() if isinstance(m, nn.Conv2d)}
    some = {n: Channels(max(1, count // SHARE), centered=True) for n, count in inputs.items()}
    mixed = {n: some[n] if i % 3 == 0 else BiasOnly() for i, n in enumerate(inputs)}
    return {
        "channels": {**some, **head},
        "channels and biases": {**mixed, **head},
        "biases": {**dict.fromkeys(inputs, BiasOnly()), **head},
        "whole": {**dict.fromkeys(inputs, Vanilla(centered=True)), **head},
    }


def stepper_of(tail: nn.Module, methods: dict[str, Method]) -> Stepper:
    """Return a stepper for the tail with these methods, image by image."""
    ours = copy.deepcopy(tail)
    inputs = {name: getattr(module, "in_channels", 0) for name, module in trained_layers(tail).items()}
    energies = {name: torch.rand(count) for name, count in inputs.items() if count}
    means = {name: torch.rand(count) for name, count in inputs.items() if count}
    compress_(ours, methods, micro_batch=1, energies=energies, means=means)
    training_mode_(ours)
    optimizer = Sgd(ours.named_parameters(), slices=layers.slices_of(ours))
    return Stepper(ours, optimizer, micro_batch=1, budget_bytes=None, update="layer")


def plain_step(tail: nn.Module, x: Tensor, y: Tensor) -> Step:
    """Return a step of plain PyTorch on each image of a batch."""
    model = copy.deepcopy(tail).eval()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], RATE, foreach=True)

    def step() -> None:
        for image, label in zip(x.split(1), y.split(1), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(image), label).backward()
            optimizer.step()

    return step


def main() -> None:
    """Print milliseconds per image for every form, and for plain PyTorch."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="mcunet")
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--profile", metavar="FORM")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tail, shape = tail_of(given.network, given.layers, given.resolution)
    x, y = torch.randn(BATCH, *shape), torch.randint(0, 10, (BATCH,))
    x = x.contiguous(memory_format=torch.channels_last)  # as a run's features are
    forms = forms_of(tail)
    if given.profile:
        stepper = stepper_of(tail, forms[given.profile])
        stepper.step_(x, y, RATE)
        with cProfile.Profile(time.thread_time) as profile:
            for _ in range(10):
                stepper.step_(x, y, RATE)
        pstats.Stats(profile).sort_stats("cumtime").print_stats(70)
        return
    steppers = {name: stepper_of(tail, methods) for name, methods in forms.items()}
    steps: dict[str, Step] = {"plain": plain_step(tail, x, y)}
    steps |= {name: lambda s=one: s.step_(x, y, RATE) for name, one in steppers.items()}
    found = {name: taken / BATCH for name, taken in medians(steps, given.seconds, "cpu").items()}
    for name, taken in found.items():
        print(f"{name:20s} {taken:6.2f} ms an image, {taken / found['plain']:5.2f} of plain")


if __name__ == "__main__":
    main()
