"""RAM of MCUNet's training step by when weights move: gradients accumulated, or applied as layers compute them.

    python experiments/benchmarks/update_memory.py

It prints the tables of docs/explanation/updates.md. Every layout is proved: the step, repeated in one buffer of that
size, gives torch's loss and weights to the bit; otherwise the row ends with "not proved".
"""

from __future__ import annotations

import argparse

import torch
from torch import nn

from fed_asi import compress_, device_memory, models, tune_last_
from fed_asi.compression.cut import cut
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.memory.arena.proof import proved
from fed_asi.memory.arena.step import record_step
from fed_asi.memory.device import DeviceMemory
from fed_asi.methods import ASI, BiasOnly, Channels, Method, Quantized, Vanilla
from fed_asi.training.at_once import at_once
from fed_asi.training.steps import training_mode_

CHANNELS = {"an eighth of the channels": 32, "the same channels, in 8 bits": 8}
FORMS: dict[str, Method | None] = {
    "plain PyTorch": None,
    "inputs whole": Vanilla(),
    "inputs in 8 bits": Quantized(8),
    "ASI (1, 8, 3, 3)": ASI((1, 8, 3, 3), warm=False),
    "the same, in 8 bits": ASI((1, 8, 3, 3), warm=False, bits=8),
    "the same, warm": ASI((1, 8, 3, 3)),
    "biases only": BiasOnly(),
}
COLUMNS = (
    "saved",
    "arena, accumulated",
    "tensor by tensor",
    "by layer",
    "trained weights",
    "RAM, accumulated",
    "tensor by tensor",
    "by layer",
    "by layer, with the trunk",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for size in chosen.micro_batches:
        print(f"\nMicro-batch {size}, KiB:\n")
        print(f"| | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
        for name in [*FORMS, *CHANNELS]:
            print(f"| {name} | {' | '.join(row(name, size, chosen.resolution, chosen.layers))} |", flush=True)


def row(name: str, size: int, pixels: int, layers: int) -> list[str]:
    """Return the cells of one form."""
    images = torch.randn(size, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(size) % 10
    trunk, tail = made(name, images[:1], layers)
    held = device_memory(tail, images, labels, trunk=trunk, gradients="accumulated")
    applied = device_memory(tail, images, labels, trunk=trunk, gradients="applied")
    moved = device_memory(tail, images, labels, trunk=trunk, gradients="applied", mover=at_once)
    with torch.no_grad():
        features = trunk(images)
    trace = record_step(tail, features, labels, gradients="applied", mover=at_once, with_values=True)
    every = [held, applied, moved]
    sizes = [held.step.saved_bytes, *(one.step.bytes for one in every), held.trained_bytes]
    rams = [*map(without_trunk, every), moved.ram_bytes]
    cells = [f"{one / 1024:,.1f}" for one in (*sizes, *rams)]
    if name in CHANNELS:  # traced outside of training's own steps, their gradients would be whole there
        for place in (1, 2, 5, 6):
            cells[place] = ""
    return cells if proved(trace).equal else [*cells, "not proved"]


def without_trunk(memory: DeviceMemory) -> int:
    """Return the bytes of RAM of the step alone: static bytes and its arena."""
    return memory.static_bytes + memory.step.bytes


def made(name: str, image: torch.Tensor, layers: int) -> tuple[nn.Module, nn.Module]:
    """Return the frozen trunk, and the tail in one form."""
    model = models.build("mcunet", 10, resolution=image.shape[-1]).eval()
    trained = tune_last_(model, layers)
    trunk, tail = cut(model, {key.rpartition(".")[0] for key in trained}, image)
    training_mode_(tail)
    if name in CHANNELS:
        some_channels_(tail, CHANNELS[name])
    elif (method := FORMS[name]) is not None:
        compress_(tail, method)
    return trunk, tail


def some_channels_(tail: nn.Module, bits: int) -> None:
    """Let an eighth of the input channels of every trained layer train; the bytes do not depend on which."""
    trained = {key.rpartition(".")[0] for key, one in tail.named_parameters() if one.requires_grad}
    every = ((name, tail.get_submodule(name)) for name in sorted(trained))
    counts = {name: channels_of(one) for name, one in every if weight_kind_of(one) is not None}
    energies = {name: torch.ones(count) for name, count in counts.items()}
    compress_(
        tail, {name: Channels(count // 8, bits=bits) for name, count in counts.items()}, energies=energies
    )


def channels_of(module: nn.Module) -> int:
    """Return the channels of a layer's input."""
    kind = weight_kind_of(module)
    return 0 if kind is None else kind.traits(module).channels


if __name__ == "__main__":
    main()
