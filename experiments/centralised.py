"""One network fine-tuned on one machine: the harness that the accuracy experiments share.

Protocol: training images drawn from CIFAR-10's x_train[:40000], batches of 128 with SGD (weight decay 1e-4,
gradient norm clipped at 2, cosine to a tenth by epoch), accuracy on x_train[40000:]. The part of the network
that nobody trains runs once; its features are kept in a store. Learning rates may be tuned on a split of
their own: 4,000 other images to train, 5,000 others to judge. Every finished run is a line of OUT/rows.csv,
and several processes may work on one folder.
"""

from __future__ import annotations

import csv
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import data, models, seeds
from fed_asi.compression.compress import check_gradients, compress_
from fed_asi.compression.cut import cut
from fed_asi.data.features import FeatureSource, FeatureStore
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import Method
from fed_asi.planning.plan import Plan
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import training_mode_

BATCH = 128
TRAIN, TUNE, JUDGE = 10_000, 4_000, 5_000
TUNING_EPOCHS = 2
RowT = TypeVar("RowT")


@dataclass(frozen=True)
class Spec:
    """What is trained and how inputs are kept: a mapping of layer to method, its micro-batch, or a plan's."""

    methods: Mapping[str, Method] | Plan
    micro_batch: int

    @classmethod
    def of(cls, plan: Plan) -> Spec:
        """Return what a plan says."""
        return cls(plan, plan.micro_batch)

    @property
    def names(self) -> set[str]:
        """Return the layers that it names."""
        return set(self.methods.methods if isinstance(self.methods, Plan) else self.methods)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: tuning runs use images of their own."""

    lr: float
    seed: int
    epochs: int
    tuning: bool = False


@dataclass(frozen=True)
class Outcome:
    """A run's result. accuracy in percent; bytes of one micro-batch; step_ms: median of the optimizer steps."""

    accuracy: float
    measured_bytes: int
    last_loss: float
    seconds: float
    step_ms: float


class Work:
    """Images, features and networks of one folder. milestones: the blocks before which features are kept."""

    def __init__(
        self,
        out: Path,
        data_dir: Path | None,
        weights_dir: Path | None,
        milestones: tuple[str, ...],
        resolution: int = 128,
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.weights_dir, self.milestones, self.resolution = (
            out,
            weights_dir,
            milestones,
            resolution,
        )
        self.dataset = data.load("cifar10", data_dir)
        order = seeds.rng(0, "frontier").permutation(40_000)[: TRAIN + TUNE + JUDGE]
        self.rows = np.concatenate([order, np.arange(40_000, 50_000)])
        self.labels = torch.from_numpy(np.asarray(self.dataset.y_train)[self.rows]).long()
        self.store = FeatureStore(out / "features")
        self._features: dict[int, Tensor] = {}

    def model(self) -> nn.Module:
        """Return MCUNet with its ImageNet weights and a fresh head."""
        return models.build("mcunet", 10, "imagenet", self.resolution, weights_dir=self.weights_dir)

    def example(self) -> Tensor:
        """Return an input of the network, (1, 3, H, W), to trace it with."""
        return torch.zeros(1, 3, self.resolution, self.resolution)

    def layers_from(self, milestone: int) -> list[str]:
        """Return the layers with weights from a milestone on."""
        names = [n for n, m in self.model().named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
        start = next(i for i, n in enumerate(names) if n.startswith(self.milestones[milestone]))
        return names[start:]

    def milestone_of(self, names: set[str]) -> int:
        """Return the last milestone before the first of these layers."""
        return [i for i in range(len(self.milestones)) if names <= set(self.layers_from(i))][-1]

    def tail(self, milestone: int, seed: int) -> nn.Module:
        """Return the network from a milestone on, its head drawn from the seed."""
        model = self.model()
        _new_head_(model, seed)
        return cut(model, self.layers_from(milestone), self.example())[1]

    def features(self, milestone: int) -> Tensor:
        """Return the features before a milestone of all images of `rows`."""
        if milestone not in self._features:
            trunk, _ = cut(self.model(), self.layers_from(milestone), self.example())
            mean, std = models.normalisation("mcunet")
            images = np.asarray(self.dataset.x_train)[self.rows]
            fingerprint = f"{self.dataset.fingerprint} frontier"
            source = FeatureSource(trunk, images, fingerprint, self.resolution, mean, std)
            self._features[milestone] = self.store.features(source)
        return self._features[milestone]


def _new_head_(model: nn.Module, seed: int) -> None:
    head = model.get_submodule(models.head_name(model))
    with torch.no_grad():
        bound = head.weight.shape[1] ** -0.5
        head.weight.uniform_(-bound, bound, generator=seeds.generator(seed, "head"))
        head.bias.zero_()


def train(work: Work, spec: Spec, schedule: Schedule, advance: Callable[[], None] = lambda: None) -> Outcome:
    """Return what training under `spec` gave; `advance` is called after every epoch."""
    began = time.monotonic()
    milestone = work.milestone_of(spec.names)
    tail = work.tail(milestone, schedule.seed)
    features, labels = work.features(milestone), work.labels
    compress_(tail, spec.methods, seed=seeds.derive(schedule.seed, "layers"), micro_batch=spec.micro_batch)
    training_mode_(tail)
    measured = _measured(tail, features, labels, spec.micro_batch)
    optimizer = Sgd(tail.named_parameters(), weight_decay=1e-4, clip_norm=2.0)
    losses, times = [0.0], [0.0]
    for epoch in range(schedule.epochs):
        rate = schedule.lr * (0.1 + 0.45 * (1 + np.cos(np.pi * epoch / schedule.epochs)))
        losses, times = _epoch(tail, optimizer, rate, _batches(schedule, epoch), features, labels)
        advance()
    accuracy = _accuracy(tail, features, labels, schedule.tuning)
    seconds = round(time.monotonic() - began, 1)
    step_ms = round(1e3 * float(np.median(times)), 2)
    return Outcome(round(100 * accuracy, 2), measured, round(float(np.mean(losses)), 4), seconds, step_ms)


def _measured(tail: nn.Module, features: Tensor, labels: Tensor, micro_batch: int) -> int:
    """Return the bytes that one micro-batch by itself really keeps, and drop what it left behind."""
    meter = ActivationMeter(tail)
    with meter:
        loss = F.cross_entropy(tail(features[:micro_batch].clone()), labels[:micro_batch].clone())
    loss.backward()
    check_gradients(tail)
    tail.zero_grad()
    return meter.saved_bytes


def _batches(schedule: Schedule, epoch: int) -> Iterator[Tensor]:
    first, count = (TRAIN, TUNE) if schedule.tuning else (0, TRAIN)
    order = first + torch.randperm(count, generator=seeds.generator(schedule.seed, "order", epoch))
    return iter(order[: count // BATCH * BATCH].split(BATCH))


def _epoch(
    tail: nn.Module, optimizer: Sgd, lr: float, batches: Iterator[Tensor], features: Tensor, labels: Tensor
) -> tuple[list[float], list[float]]:
    losses, times = [], []
    for rows in batches:
        x, y = features[rows], labels[rows]
        began = time.thread_time()
        loss = F.cross_entropy(tail(x), y)
        loss.backward()
        optimizer.step_(lr)
        times.append(time.thread_time() - began)
        losses.append(float(loss.detach()))
    return losses, times


def _accuracy(tail: nn.Module, features: Tensor, labels: Tensor, tuning: bool) -> float:
    judged = slice(TRAIN + TUNE, TRAIN + TUNE + JUDGE) if tuning else slice(TRAIN + TUNE + JUDGE, None)
    tail.eval()
    with torch.no_grad():
        right = [
            (tail(x).argmax(1) == y).sum()
            for x, y in zip(features[judged].split(250), labels[judged].split(250), strict=True)
        ]
    return float(torch.stack(right).sum()) / len(labels[judged])


class Rows(Generic[RowT]):
    """The finished runs of a folder, one dataclass a line; claims keep processes off each other's work."""

    def __init__(self, folder: Path, kind: type[RowT]) -> None:
        self.path, self.kind = folder / "rows.csv", kind
        self.claims = folder / "claims"
        self.claims.mkdir(parents=True, exist_ok=True)

    def read(self) -> list[RowT]:
        """Return every finished run."""
        if not self.path.exists():
            return []
        kinds = {f.name: {"str": str, "int": int, "float": float}[str(f.type)] for f in fields(self.kind)}  # type: ignore[arg-type]
        with self.path.open(newline="") as file:
            return [self.kind(**{k: kinds[k](v) for k, v in row.items()}) for row in csv.DictReader(file)]

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

    def add(self, row: RowT) -> None:
        """Append one run; one write, so that processes do not mix."""
        new = not self.path.exists()
        values = asdict(row)  # type: ignore[call-overload]
        line = ",".join(f'"{v}"' if isinstance(v, str) else str(v) for v in values.values()) + "\n"
        with self.path.open("a") as file:
            file.write((",".join(values) + "\n" if new else "") + line)
