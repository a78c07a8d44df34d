"""What a byte buys: MCUNet on CIFAR-10 under byte budgets, for the planner and its rivals.

    python experiments/frontier.py --data-dir DATA --weights-dir WEIGHTS
    python experiments/frontier.py ... --suite objectives --seeds 0 1 2

Protocol: 10,000 training images drawn from x_train[:40000], 6 epochs of batch 128 with SGD (weight decay
1e-4, gradient norm clipped at 2, cosine to a tenth by epoch), 128x128 pixels, accuracy on x_train[40000:].
Learning rates are tuned on a split of their own: 4,000 other images, 2 epochs, 5,000 others to judge.
Resumable: every finished run is a row of OUT/rows.csv, and several processes may work on one folder.
experiments/frontier_table.py writes docs/plan_frontier.md from the rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from centralised import TUNING_EPOCHS, Rows, Schedule, Spec, Work, train  # the sibling module
from torch import nn

from fed_asi import models
from fed_asi.data.images import to_batch
from fed_asi.planning.calibration import profile
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.search import plan

RESOLUTION, CALIBRATION = 128, 64
RATES = (0.025, 0.05, 0.1, 0.2, 0.3)
EPOCHS = 6
MILESTONES = ("blocks.5", "blocks.8", "blocks.10", "classifier")
BUDGETS = ("16 KiB", "64 KiB", "8 KiB", "256 KiB")
SMALL = (
    "8 KiB",
    "16 KiB",
    "4 KiB",
    "32 KiB",
)  # where the choice matters: from 64 KiB on every plan captures 99 %
MICRO_BATCHES = (1, 2, 4, 16, 128)
LAYERS = 27  # convolutions from blocks.5 on: those before have inputs of 24 KiB and more


@dataclass(frozen=True)
class Contestant:
    """One line of the table: how its plan is made. `budget` None means unlimited memory."""

    name: str
    budget: str | None = None
    layers: str | None = None
    methods: tuple[str, ...] | None = None
    micro_batch: int | None = None
    objective: str | None = None
    selection: str = "exact"
    centered: bool | None = True
    rate_of: str | None = None  # the contestant whose tuned learning rate it takes over

    @property
    def key(self) -> str:
        """Return its unique name."""
        return f"{self.name} @ {self.budget or 'unlimited'}"

    def plan(self, made: Profile) -> Plan:
        """Return its plan."""
        return plan(
            made,
            self.budget,
            layers=self.layers,
            methods=self.methods,
            micro_batch=self.micro_batch,
            objective=self.objective,
            selection=self.selection,
            centered=self.centered,
        )


def _vanilla(n: int, centered: bool = False) -> Contestant:
    name = f"vanilla last {n}" + (", centred" if centered else "")
    return Contestant(name, layers=f"last {n}", methods=("vanilla", "mean"), micro_batch=1, centered=centered)


SUITES: dict[str, list[Contestant]] = {
    "planner": [Contestant("planner", b) for b in (*BUDGETS, "4 KiB", "32 KiB")],
    "asi": [  # above 16 KiB the tails are long, so the rate is the planner's
        Contestant("ASI alone", b, methods=("asi",), rate_of="planner" if b in BUDGETS[1::2] else None)
        for b in BUDGETS
    ],
    "rivals": [
        Contestant("head only", layers="last 0", methods=("vanilla",), micro_batch=1, centered=False),
        _vanilla(14),
        _vanilla(4),
        Contestant("bias only, last 12", layers="last 12", methods=("bias",), micro_batch=1),
        _vanilla(8),
        Contestant("published last 4", "64 KiB", layers="last 4", micro_batch=16, selection="published"),
        Contestant("published last 4", "256 KiB", layers="last 4", micro_batch=16, selection="published"),
        _vanilla(14, centered=True),
        _vanilla(2),
        Contestant("published last 4", "16 KiB", layers="last 4", micro_batch=1, selection="published"),
    ],
    "objectives": [
        Contestant(f"planner, {objective}", b, objective=objective)
        for b in SMALL
        for objective in ("perplexity", "relative-error")
    ],
    "uncentred": [
        *(Contestant("planner, uncentred", b, centered=False) for b in SMALL[:2]),
        *(Contestant("ASI alone, uncentred", b, methods=("asi",), centered=False) for b in SMALL[:2]),
    ],
}


@dataclass
class Row:
    """One finished run."""

    contestant: str
    phase: str
    lr: float
    seed: int
    accuracy: float
    planned_bytes: int
    measured_bytes: int
    micro_batch: int
    layers: int
    last_loss: float
    seconds: float


def profile_of(work: Work) -> Profile:
    """Return MCUNet's profile on the first training images, made once a folder."""
    path = work.out / "profile.json"
    if not path.exists():
        model = work.model()
        images = np.asarray(work.dataset.x_train)[work.rows[:CALIBRATION]]
        x = to_batch(images, work.resolution, *models.normalisation("mcunet"))
        convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][-LAYERS:]
        made = profile(
            model,
            x,
            work.labels[:CALIBRATION],
            trained=[*convolutions, models.head_name(model)],
            micro_batches=MICRO_BATCHES,
            density=10,
            centered=None,
            grid=True,
        )
        made.save(path)
    return Profile.load(path)


def run(work: Work, key: str, chosen: Plan, *, lr: float, seed: int, tuning: bool) -> Row:
    """Return the row of one run."""
    schedule = Schedule(lr, seed, TUNING_EPOCHS if tuning else EPOCHS, tuning)
    found = train(work, Spec.of(chosen), schedule)
    phase = "tuning" if tuning else "final"
    sizes = (chosen.planned_bytes, found.measured_bytes, chosen.micro_batch, len(chosen.methods))
    return Row(key, phase, lr, seed, found.accuracy, *sizes, found.last_loss, found.seconds)


def find(
    rows: Rows[Row], contestant: str, phase: str, lr: float | None = None, seed: int | None = None
) -> list[Row]:
    """Return the finished runs of a contestant."""
    return [
        r
        for r in rows.read()
        if (r.contestant, r.phase) == (contestant, phase)
        and (lr is None or r.lr == lr)
        and (seed is None or r.seed == seed)
    ]


def compete(work: Work, made: Profile, contestants: Sequence[Contestant], run_seeds: Sequence[int]) -> None:
    """Tune, then run every contestant with every seed, skipping what is finished."""
    rows = Rows(work.out, Row)
    for seed in run_seeds:
        for contestant in contestants:
            key = contestant.key
            if find(rows, key, "final", seed=seed) or not rows.claim(f"{key} final {seed}"):
                continue
            chosen = contestant.plan(made)
            lr = tuned_rate(work, rows, contestant, chosen)
            _finish(rows, run(work, key, chosen, lr=lr, seed=seed, tuning=False))


def tuned_rate(work: Work, rows: Rows[Row], contestant: Contestant, chosen: Plan) -> float:
    """Return the best learning rate on the tuning split: up from 0.1 while it helps, else down."""
    if contestant.rate_of:
        found = find(rows, f"{contestant.rate_of} @ {contestant.budget}", "final")
        if found:
            return found[0].lr
    scores: dict[float, float] = {}

    def score(lr: float) -> float:
        if lr not in scores:
            found = find(rows, contestant.key, "tuning", lr=lr)
            if not found:
                found = [_finish(rows, run(work, contestant.key, chosen, lr=lr, seed=100, tuning=True))]
            scores[lr] = found[0].accuracy
        return scores[lr]

    index = RATES.index(0.1)
    step = 1 if score(RATES[index + 1]) > score(RATES[index]) else -1
    while 0 <= index + step < len(RATES) and score(RATES[index + step]) > score(RATES[index]):
        index += step
    return RATES[index]


def _finish(rows: Rows[Row], row: Row) -> Row:
    rows.add(row)
    print(
        f"{row.contestant} {row.phase} lr {row.lr} seed {row.seed}: {row.accuracy} % in {row.seconds} s",
        flush=True,
    )
    return row


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--suite", action="append", choices=[*SUITES], default=None)
    parser.add_argument("--only", nargs="+", help="keys such as 'planner @ 16 KiB'; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--plans", action="store_true", help="print the plans and stop")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    work = Work(arguments.out, arguments.data_dir, arguments.weights_dir, MILESTONES, RESOLUTION)
    made = profile_of(work)
    contestants = [c for suite in arguments.suite or SUITES for c in SUITES[suite]]
    contestants = [c for c in contestants if not arguments.only or c.key in arguments.only]
    if arguments.plans:
        for contestant in contestants:
            print(contestant.key, contestant.plan(made), sep="\n", end="\n\n")
        return 0
    compete(work, made, contestants, arguments.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
