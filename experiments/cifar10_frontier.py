"""The poster's main figure, as far as one small machine allows: methods x layers on CIFAR-10, MCUNet.

    python experiments/cifar10_frontier.py --data-dir DATA --weights-dir WEIGHTS

Set-up A of the papers, made smaller: 10,000 of x_train[:40000], 6 epochs instead of 50 (--epochs), 128x128
pixels instead of 224 (--resolution). As there: batch 128, SGD with learning rate 0.05, no momentum, weight
decay 1e-4, cosine to a tenth by epoch, gradient norm clipped at 2, batch norm in eval mode, no augmentation.
Accuracy is on x_train[40000:]. "n layers" are the last n convolutions and the classifier; 0 is the classifier
alone. Ranks are those of HOSVD at 0.8 on one calibration batch of 128.
Resumable: every finished run is a row of OUT/rows.csv; several processes may work on one folder.
experiments/cifar10_frontier_table.py writes docs/cifar10_frontier.md from the rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from centralised import BATCH, Rows, Schedule, Spec, Work, train  # the sibling modules
from memory_table import Ranks, hosvd_ranks
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from fed_asi import models
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.methods import (
    ASI,
    HOSVD,
    BiasOnly,
    FixedSubspace,
    GradientFilter,
    Method,
    Quantized,
    Vanilla,
)
from fed_asi.methods.sizes import LayerSize

MILESTONES = ("blocks.8", "blocks.10", "blocks.12", "blocks.13", "classifier")
DEPTHS = (2, 4, 6, 8)
LR = 0.05
METHODS = {
    "vanilla": "inputs kept whole",
    "gradient filter 2": "patches of 2x2, approximate dX",
    "HOSVD 0.8": "a truncated SVD a mode at every step",
    "ASI, published": "subspace iteration, published order",
    "ASI, ours": "subspace iteration, sequential order, nothing kept between steps",
    "fixed subspace": "factors from the first batch (0.7), only the core is kept",
    "8 bits": "inputs kept in 8 bits",
    "bias only": "no input is kept",
}


@dataclass
class Row:
    """One finished run. counted_bytes, published_flops: the papers' conventions; macs: groups and dX counted."""

    method: str
    layers: int
    seed: int
    epochs: int
    resolution: int
    accuracy: float
    counted_bytes: int
    saved_bytes: int
    published_flops: int
    macs: int
    step_ms: float
    last_loss: float
    seconds: float


@dataclass(frozen=True)
class Depth:
    """The last n convolutions: their sizes in one batch of 128, ranks, and the classifier's name.

    ranks: HOSVD's at 0.8. fixed_ranks: at 0.7, the batch mode whole, as the fixed subspace keeps.
    """

    n: int
    sizes: Mapping[str, LayerSize]
    ranks: Ranks
    fixed_ranks: Ranks
    head: str

    def methods(self, method: str) -> dict[str, Method]:
        """Return what each layer does under a method of METHODS."""
        return {name: self._one(method, name) for name in self.sizes} | {self.head: Vanilla()}

    def _one(self, method: str, name: str) -> Method:
        fixed: dict[str, Method] = {
            "vanilla": Vanilla(),
            "gradient filter 2": GradientFilter(2),
            "HOSVD 0.8": HOSVD(0.8),
            "ASI, published": ASI(self.ranks[name], order="published"),
            "ASI, ours": ASI(self.ranks[name], warm=False),
            "fixed subspace": FixedSubspace(),
            "8 bits": Quantized(8),
            "bias only": BiasOnly(),
        }
        return fixed[method]

    def counted(self, method: str) -> tuple[int, int, int]:
        """Return (papers' bytes, papers' FLOPs, MACs with groups and dX) of one step's trained convolutions."""
        published, flops, macs = 0, 0, 0
        for index, (name, size) in enumerate(self.sizes.items()):
            one = self._one(method, name)
            ranks = (self.fixed_ranks if isinstance(one, FixedSubspace) else self.ranks)[name]
            published += one.published_bytes(size, ranks)
            flops += one.published_flops(size, ranks)
            macs += size.forward_macs + one.dw_macs(size, ranks)
            macs += one.dx_macs(size) if index else 0
            macs += one.overhead_macs(size, ranks) if one.trains_weight else 0
        return published, flops, macs


@cache
def depth_of(work: Work, n: int) -> Depth:
    """Return the last n convolutions of MCUNet on the first batch of training images."""
    model = work.model()
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)][-n:] if n else []
    head = models.head_name(model)
    milestone = work.milestone_of({*names, head})
    tail = work.tail(milestone, seed=0).eval()
    found: dict[str, tuple[Tensor, LayerSize]] = {}
    for name in names:
        tail.get_submodule(name).register_forward_hook(
            lambda m, args, _out, name=name: found.update(
                {name: (args[0].clone(), weight_kind_of(m).size(m, args[0].shape))}
            )
        )
    with torch.no_grad():
        tail(work.features(milestone)[:BATCH])
    inputs = {name: x for name, (x, _) in found.items()}
    fixed = {name: (BATCH, *ranks[1:]) for name, ranks in hosvd_ranks(inputs, 0.7).items()}
    return Depth(n, {name: size for name, (_, size) in found.items()}, hosvd_ranks(inputs), fixed, head)


def contestants() -> list[tuple[str, int]]:
    """Return (method, layers), those that tell most first."""
    first = [("vanilla", 0), ("vanilla", 2), ("ASI, published", 4), ("ASI, ours", 4), ("vanilla", 4)]
    rest = [(method, n) for n in (4, 2, 8, 6) for method in METHODS]
    return list(dict.fromkeys(first + rest))


def run(work: Work, method: str, n: int, seed: int, epochs: int, bar: Progress) -> Row:
    """Return the row of one run."""
    depth = depth_of(work, n)
    task = bar.add_task(f"{method}, last {n}, seed {seed}", total=epochs)
    spec = Spec(depth.methods(method), BATCH)
    found = train(work, spec, Schedule(LR, seed, epochs), lambda: bar.advance(task))
    bar.remove_task(task)
    return Row(
        method,
        n,
        seed,
        epochs,
        work.resolution,
        found.accuracy,
        *_order(depth.counted(method), found.measured_bytes),
        found.step_ms,
        found.last_loss,
        found.seconds,
    )


def _order(counted: tuple[int, int, int], saved: int) -> tuple[int, int, int, int]:
    return counted[0], saved, counted[1], counted[2]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    parser.add_argument("--methods", nargs="+", choices=[*METHODS], default=[*METHODS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--resolution", type=int, default=128)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    work = Work(arguments.out, arguments.data_dir, arguments.weights_dir, MILESTONES, arguments.resolution)
    rows = Rows(arguments.out, Row)
    wanted = [
        (method, n, seed)
        for seed in arguments.seeds
        for method, n in contestants()
        if method in arguments.methods or n == 0
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as bar:
        total = bar.add_task("all runs", total=len(wanted))
        for method, n, seed in wanted:
            key = f"{method} {n} {seed} {arguments.epochs} {arguments.resolution}"
            if not _finished(rows, method, n, seed, arguments) and rows.claim(key):
                row = run(work, method, n, seed, arguments.epochs, bar)
                rows.add(row)
                bar.console.print(
                    f"{method}, last {n}, seed {seed}: {row.accuracy} % in {row.seconds} s", highlight=False
                )
            bar.advance(total)
    return 0


def _finished(rows: Rows[Row], method: str, n: int, seed: int, arguments: argparse.Namespace) -> bool:
    key = (method, n, seed, arguments.epochs, arguments.resolution)
    return any((r.method, r.layers, r.seed, r.epochs, r.resolution) == key for r in rows.read())


if __name__ == "__main__":
    sys.exit(main())
