"""The arena of four networks and ten forms, and the RAM and flash of the device around it.

python experiments/arena_table.py > docs/results/arena_table.md
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from torch import nn

from fed_asi import compress_, device_memory, models, tune_last_
from fed_asi.compression.cut import cut
from fed_asi.memory.arena.proof import proved
from fed_asi.memory.arena.step import record_step
from fed_asi.memory.device import DeviceMemory
from fed_asi.methods import ASI, HOSVD, BiasOnly, GradientFilter, Method, Quantized, Vanilla
from fed_asi.training.steps import training_mode_

# name -> (resolution, micro-batches)
NETWORKS = {
    "mcunet": (128, (1, 16)),
    "mobilenet_v2": (224, (1,)),
    "resnet18": (224, (1,)),
    "resnet34": (224, (1,)),
}
FORMS: dict[str, Method | None] = {
    "plain PyTorch": None,
    "inputs whole": Vanilla(),
    "inputs in 8 bits": Quantized(8),
    "inputs in 4 bits": Quantized(4),
    "ASI (1, 8, 3, 3)": ASI((1, 8, 3, 3), warm=False),
    "the same, in 8 bits": ASI((1, 8, 3, 3), warm=False, bits=8),
    "the same, warm": ASI((1, 8, 3, 3)),
    "HOSVD 0.8": HOSVD(0.8),
    "gradient filter": GradientFilter(2),
    "biases only": BiasOnly(),
}
COLUMNS = (
    "saved",
    "arena, held",
    "applied",
    "over the bound",
    "RAM, held",
    "accumulated",
    "applied",
    "flash",
    "as torch",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--layers", type=int, default=4)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(HEADING)
    seconds: list[float] = []
    for name in chosen.networks:
        pixels, sizes = NETWORKS[name]
        for size in sizes:
            print(f"\n### {name}, {pixels}x{pixels}, last {chosen.layers} convolutions, micro-batch {size}\n")
            print(f"| KiB | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
            for form, method in FORMS.items():
                print(
                    f"| {form} | {' | '.join(row(name, method, size, chosen.layers, seconds))} |", flush=True
                )
    took = statistics.median(seconds)
    print(
        f"a plan: {took:.2f} s in the median, {max(seconds):.2f} at most, of {len(seconds)}", file=sys.stderr
    )


def row(name: str, method: Method | None, size: int, layers: int, seconds: list[float]) -> list[str]:
    """Return the cells of one form; `seconds` collects the processor time of each plan, of trunk and tail."""
    pixels, _ = NETWORKS[name]
    model = models.build(name, 10, resolution=pixels).eval()
    trained = tune_last_(model, layers)
    x = torch.randn(size, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    y = torch.arange(size) % 10
    trunk, tail = cut(model, {key.rpartition(".")[0] for key in trained}, x[:1])
    training_mode_(tail)
    if method is not None:
        compress_(tail, method)
    found: dict[str, DeviceMemory] = {}
    for rule in ("held", "accumulated", "applied"):
        start = time.process_time()
        found[rule] = device_memory(tail, x, y, trunk=trunk, gradients=rule, of_this_batch=True)  # type: ignore[arg-type]
        seconds.append(time.process_time() - start)
    with torch.no_grad():
        features = trunk(x)
    held, applied = found["held"].step, found["applied"].step
    over = max(one.step.bytes / one.step.lower_bound_bytes - 1 for one in found.values())
    sizes = [held.saved_bytes, held.bytes, applied.bytes]
    rams = [one.ram_bytes for one in found.values()]
    return [
        *(f"{one / 1024:,.1f}" for one in sizes),
        f"{over:.1%}",
        *(f"{one / 1024:,.1f}" for one in (*rams, found["held"].flash_bytes)),
        "to the bit" if same(tail, features, y) else "no",
    ]


def same(tail: nn.Module, x: torch.Tensor, y: torch.Tensor) -> bool:
    """Return whether the step, repeated in its arena, gives torch's loss and gradients to the bit."""
    return proved(record_step(tail, x, y, with_values=True)).equal


HEADING = """# The arena of four networks and ten forms

Made by `python experiments/arena_table.py > docs/results/arena_table.md`. The terms are explained in
[the memory of a device](../explanation/memory_of_a_device.md).
The last four convolutions and the head are trained, in float32, from random
weights. The arena is that of one micro-batch in the tail; the trunk before it runs image by image. *Held*: gradients
stay in the arena until the update. *Accumulated*: each gradient is added to an accumulator in static memory. *Applied*:
each gradient updates its weight at once. *Over the bound*: how far the worst of the three arenas exceeds the lower
bound, the most bytes that are alive at one time. *As torch*: the step, repeated inside a single buffer of the arena's
size, gives torch's loss and gradients. HOSVD's ranks depend on the data, so its sizes hold for this batch only."""

if __name__ == "__main__":
    main()
