"""Everything a device holds while it trains MCUNet's last 4 convolutions, each part by name.

python experiments/training_memory.py > docs/results/training_memory.md
"""

from __future__ import annotations

import argparse
from dataclasses import fields

import torch

from fed_asi import compress_, models, tune_last_
from fed_asi.compression.cut import cut
from fed_asi.memory.training import TrainingMemory, training_memory
from fed_asi.methods import ASI, BiasOnly, Method, Quantized, Vanilla

FORMS: dict[str, Method | None] = {
    "plain PyTorch": None,
    "inputs whole": Vanilla(),
    "inputs in 8 bits": Quantized(8),
    "ASI (1, 8, 3, 3)": ASI((1, 8, 3, 3), warm=False),
    "biases only": BiasOnly(),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[1, 16])
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print(HEADING)
    for size in chosen.micro_batches:
        for accumulate in (True, False):
            how = "gradients accumulated" if accumulate else "weights moved after every micro-batch"
            print(f"\n### Micro-batch {size}, {chosen.resolution}x{chosen.resolution}, {how}\n")
            rows = {
                name: measured(method, size, chosen.resolution, accumulate) for name, method in FORMS.items()
            }
            show(rows)


def measured(method: Method | None, size: int, resolution: int, accumulate: bool) -> TrainingMemory:
    """Return what a step of the tail needs in one form; the frozen trunk runs before it."""
    model = models.build("mcunet", 10).eval()
    trained = tune_last_(model, 4)
    x = torch.randn(size, 3, resolution, resolution)
    trunk, tail = cut(model, {name.rpartition(".")[0] for name in trained}, x[:1])
    if method is not None:
        compress_(tail.train(), method)
    return training_memory(tail, x, torch.arange(size) % 10, trunk=trunk, accumulate=accumulate)


def show(rows: dict[str, TrainingMemory]) -> None:
    """Print one table, with a line for each part, in KiB."""
    names = [field.name for field in fields(TrainingMemory)] + ["static_bytes", "total_bytes"]
    print("| KiB | " + " | ".join(rows) + " |")
    print("|---" * (len(rows) + 1) + "|")
    for name in names:
        values = (f"{getattr(row, name) / 1024:,.1f}" for row in rows.values())
        print(f"| {name} | " + " | ".join(values) + " |")


HEADING = """# Everything that a training step holds

Made by `python experiments/training_memory.py > docs/results/training_memory.md`; MCUNet, last 4 convolutions and head,
float32, plain SGD. A budget limits the *saved* bytes by default. This page counts the rest too, because a step needs
more than what it saves. Transients are the peaks of PyTorch on a CPU, whose operations make temporaries that a
microcontroller's kernels would not make. The trunk's transients exist while nothing is saved."""

if __name__ == "__main__":
    main()
