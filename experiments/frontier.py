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
import csv
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import data, layers, models, seeds
from fed_asi.calibration import profile
from fed_asi.compression import check_gradients, compress_
from fed_asi.data.features import FeatureSource, FeatureStore
from fed_asi.data.images import to_batch
from fed_asi.meter import ActivationMeter
from fed_asi.models.split import cut
from fed_asi.planner import plan
from fed_asi.plans import Plan
from fed_asi.profiles import Profile
from fed_asi.sgd import Sgd
from fed_asi.steps import training_mode_

RESOLUTION, BATCH, CALIBRATION = 128, 128, 64
TRAIN, TUNE, JUDGE = 10_000, 4_000, 5_000
RATES = (0.025, 0.05, 0.1, 0.2, 0.3)
TUNING_EPOCHS, EPOCHS = 2, 6
MILESTONES = ("blocks.5", "blocks.8", "blocks.10", "classifier")
BUDGETS = ("16 KiB", "64 KiB", "8 KiB", "256 KiB")
SMALL = ("8 KiB", "16 KiB", "4 KiB", "32 KiB")  # where the choice matters: from 64 KiB on every plan captures 99 %
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


class Work:
    """Images, features, profile and rows of one folder."""

    def __init__(self, out: Path, data_dir: Path, weights_dir: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out = out
        self.weights_dir = weights_dir
        self.dataset = data.load("cifar10", data_dir)
        order = seeds.rng(0, "frontier").permutation(40_000)[: TRAIN + TUNE + JUDGE]
        self.rows = np.concatenate([order, np.arange(40_000, 50_000)])
        self.labels = torch.from_numpy(np.asarray(self.dataset.y_train)[self.rows]).long()
        self.store = FeatureStore(out / "features")
        self._features: dict[int, Tensor] = {}
        self.profile = self._profile()

    def model(self) -> nn.Module:
        """Return MCUNet with its ImageNet weights and a fresh head."""
        return models.build("mcunet", 10, "imagenet", RESOLUTION, weights_dir=self.weights_dir)

    def _profile(self) -> Profile:
        path = self.out / "profile.json"
        if not path.exists():
            model = self.model()
            images = np.asarray(self.dataset.x_train)[self.rows[:CALIBRATION]]
            x = to_batch(images, RESOLUTION, *models.normalisation("mcunet"))
            convolutions = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)][-LAYERS:]
            made = profile(
                model,
                x,
                self.labels[:CALIBRATION],
                trained=[*convolutions, models.head_name(model)],
                micro_batches=MICRO_BATCHES,
                density=10,
            )
            made.save(path)
        return Profile.load(path)

    def features(self, milestone: int) -> Tensor:
        """Return the features before a milestone of all images of `rows`."""
        if milestone not in self._features:
            model, example = self.model(), torch.zeros(1, 3, RESOLUTION, RESOLUTION)
            trunk, _ = cut(model, _from(model, milestone), example)
            mean, std = models.normalisation("mcunet")
            images = np.asarray(self.dataset.x_train)[self.rows]
            fingerprint = f"{self.dataset.fingerprint} frontier"
            source = FeatureSource(trunk, images, fingerprint, RESOLUTION, mean, std)
            self._features[milestone] = self.store.features(source)
        return self._features[milestone]


def _from(model: nn.Module, milestone: int) -> list[str]:
    """Return the layers with weights from a milestone on."""
    names = [n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    start = next(i for i, n in enumerate(names) if n.startswith(MILESTONES[milestone]))
    return names[start:]


def milestone_of(chosen: Plan, model: nn.Module) -> int:
    """Return the last milestone before the first trained layer."""
    fitting = [i for i in range(len(MILESTONES)) if set(chosen.methods) <= set(_from(model, i))]
    return fitting[-1]


def train(work: Work, chosen: Plan, *, lr: float, seed: int, tuning: bool) -> Row:
    """Return the row of one run."""
    began = time.monotonic()
    model = work.model()
    _new_head_(model, seed)
    milestone = milestone_of(chosen, model)
    tail = cut(model, _from(model, milestone), torch.zeros(1, 3, RESOLUTION, RESOLUTION))[1]
    features, labels = work.features(milestone), work.labels
    compress_(tail, chosen, seed=seeds.derive(seed, "layers"))
    training_mode_(tail)
    measured = _measured(tail, features, labels, chosen.micro_batch)
    optimizer = Sgd(tail.named_parameters(), weight_decay=1e-4, clip_norm=2.0)
    epochs = TUNING_EPOCHS if tuning else EPOCHS
    loss = 0.0
    for epoch in range(epochs):
        rate = lr * (0.1 + 0.45 * (1 + np.cos(np.pi * epoch / epochs)))
        loss = _epoch(tail, optimizer, rate, _batches(seed, epoch, tuning), features, labels)
    judged = slice(TRAIN + TUNE, TRAIN + TUNE + JUDGE) if tuning else slice(TRAIN + TUNE + JUDGE, None)
    accuracy = _accuracy(tail, features[judged], labels[judged])
    phase = "tuning" if tuning else "final"
    seconds = round(time.monotonic() - began, 1)
    sizes = (chosen.planned_bytes, measured, chosen.micro_batch, len(chosen.methods))
    return Row("", phase, lr, seed, round(100 * accuracy, 2), *sizes, round(loss, 4), seconds)


def _new_head_(model: nn.Module, seed: int) -> None:
    head = model.get_submodule(models.head_name(model))
    with torch.no_grad():
        bound = head.weight.shape[1] ** -0.5
        head.weight.uniform_(-bound, bound, generator=seeds.generator(seed, "head"))
        head.bias.zero_()


def _measured(tail: nn.Module, features: Tensor, labels: Tensor, micro_batch: int) -> int:
    """Return the bytes that one micro-batch by itself really keeps, and drop what it left behind."""
    meter = ActivationMeter(tail)
    with meter:
        loss = F.cross_entropy(tail(features[:micro_batch].clone()), labels[:micro_batch].clone())
    loss.backward()
    check_gradients(tail)
    tail.zero_grad()
    return meter.saved_bytes


def _batches(seed: int, epoch: int, tuning: bool) -> Iterator[Tensor]:
    first, count = (TRAIN, TUNE) if tuning else (0, TRAIN)
    order = first + torch.randperm(count, generator=seeds.generator(seed, "order", epoch))
    return iter(order[: count // BATCH * BATCH].split(BATCH))


def _epoch(
    tail: nn.Module, optimizer: Sgd, lr: float, batches: Iterator[Tensor], features: Tensor, labels: Tensor
) -> float:
    losses = []
    for rows in batches:
        loss = F.cross_entropy(tail(features[rows]), labels[rows])
        loss.backward()
        optimizer.step_(lr)
        layers.commit_factors_(tail)
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def _accuracy(tail: nn.Module, features: Tensor, labels: Tensor) -> float:
    tail.eval()
    with torch.no_grad():
        right = [
            (tail(x).argmax(1) == y).sum()
            for x, y in zip(features.split(250), labels.split(250), strict=True)
        ]
    return float(torch.stack(right).sum()) / len(labels)


class Rows:
    """The finished runs of a folder; claims keep processes off each other's work."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "rows.csv"
        self.claims = folder / "claims"
        self.claims.mkdir(exist_ok=True)

    def read(self) -> list[Row]:
        """Return every finished run."""
        if not self.path.exists():
            return []
        kinds = {f.name: {"str": str, "int": int, "float": float}[str(f.type)] for f in fields(Row)}
        with self.path.open(newline="") as file:
            return [Row(**{k: kinds[k](v) for k, v in row.items()}) for row in csv.DictReader(file)]

    def find(
        self, contestant: str, phase: str, lr: float | None = None, seed: int | None = None
    ) -> list[Row]:
        """Return the finished runs of a contestant."""
        return [
            r
            for r in self.read()
            if (r.contestant, r.phase) == (contestant, phase)
            and (lr is None or r.lr == lr)
            and (seed is None or r.seed == seed)
        ]

    def claim(self, key: str) -> bool:
        """Return whether this process may do the run; a claim of a process that died is taken over."""
        path = self.claims / "".join(c if c.isalnum() else "_" for c in key)
        try:
            with path.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            owner = path.read_text().strip()
            if owner and Path(f"/proc/{owner}").exists():
                return False
            path.write_text(str(os.getpid()))
        return True

    def add(self, row: Row) -> None:
        """Append one run; one write, so that processes do not mix."""
        new = not self.path.exists()
        line = ",".join(f'"{v}"' if isinstance(v, str) else str(v) for v in asdict(row).values()) + "\n"
        with self.path.open("a") as file:
            file.write((",".join(f.name for f in fields(Row)) + "\n" if new else "") + line)


def compete(work: Work, contestants: Sequence[Contestant], run_seeds: Sequence[int]) -> None:
    """Tune, then run every contestant with every seed, skipping what is finished."""
    rows = Rows(work.out)
    for seed in run_seeds:
        for contestant in contestants:
            key = contestant.key
            if rows.find(key, "final", seed=seed) or not rows.claim(f"{key} final {seed}"):
                continue
            chosen = contestant.plan(work.profile)
            lr = tuned_rate(work, rows, contestant, chosen)
            _finish(rows, key, train(work, chosen, lr=lr, seed=seed, tuning=False))


def tuned_rate(work: Work, rows: Rows, contestant: Contestant, chosen: Plan) -> float:
    """Return the best learning rate on the tuning split: up from 0.1 while it helps, else down."""
    if contestant.rate_of:
        found = rows.find(f"{contestant.rate_of} @ {contestant.budget}", "final")
        if found:
            return found[0].lr
    scores: dict[float, float] = {}

    def score(lr: float) -> float:
        if lr not in scores:
            found = rows.find(contestant.key, "tuning", lr=lr)
            if not found:
                found = [_finish(rows, contestant.key, train(work, chosen, lr=lr, seed=100, tuning=True))]
            scores[lr] = found[0].accuracy
        return scores[lr]

    index = RATES.index(0.1)
    step = 1 if score(RATES[index + 1]) > score(RATES[index]) else -1
    while 0 <= index + step < len(RATES) and score(RATES[index + step]) > score(RATES[index]):
        index += step
    return RATES[index]


def _finish(rows: Rows, key: str, row: Row) -> Row:
    row.contestant = key
    rows.add(row)
    print(f"{key} {row.phase} lr {row.lr} seed {row.seed}: {row.accuracy} % in {row.seconds} s", flush=True)
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
    work = Work(arguments.out, arguments.data_dir, arguments.weights_dir)
    contestants = [c for suite in arguments.suite or SUITES for c in SUITES[suite]]
    contestants = [c for c in contestants if not arguments.only or c.key in arguments.only]
    if arguments.plans:
        for contestant in contestants:
            print(contestant.key, contestant.plan(work.profile), sep="\n", end="\n\n")
        return 0
    compete(work, contestants, arguments.seeds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
