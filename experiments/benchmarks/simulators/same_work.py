"""The work that every simulator does (the same network, images, shards, cohorts and order of images), and its clock.

The driver (compare.py) writes it once into a folder; each simulator's adapter opens it in its own environment, so this
file imports only NumPy, PyTorch and the networks.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cifar_networks
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

VERSION = 1
JUDGED_AT_ONCE = 100  # test images per batch

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Settings:
    """What is trained and how. trained: names of the parameters that train. layers: the same, as in a fleet file.

    cohorts: the clients of each round. images: of all clients together. data: the folder of the data set.
    """

    network: str
    layers: int | str
    trained: tuple[str, ...]
    cohorts: tuple[tuple[int, ...], ...]
    clients: int
    images: int
    test_images: int
    public_images: int
    classes: int
    resolution: int
    batch: int
    epochs: int
    lr: float
    alpha: float
    seed: int
    workers: int
    source: str
    data: str | None = None
    version: int = VERSION

    @property
    def rounds(self) -> int:
        """The number of rounds."""
        return len(self.cohorts)


@dataclass(frozen=True)
class Work:
    """The work in a folder, as `write` wrote it."""

    folder: Path
    settings: Settings

    @classmethod
    def open(cls, folder: Path) -> Work:
        """Return the work in a folder. Raises ValueError if it has another version."""
        said = json.loads((folder / "work.json").read_text())
        if said.get("version") != VERSION:
            raise ValueError(f"{folder}/work.json is of version {said.get('version')}, not {VERSION}")
        said["trained"] = tuple(said["trained"])
        said["cohorts"] = tuple(tuple(cohort) for cohort in said["cohorts"])
        return cls(folder, Settings(**said))

    @cached_property
    def shards(self) -> dict[str, Rows]:
        """Offsets of the clients' rows, and the rows of each training in order, all concatenated."""
        with np.load(self.folder / "shards.npz") as arrays:
            return {name: arrays[name] for name in arrays.files}

    @cached_property
    def images(self) -> Tensor:
        """The training images, (N, 3, H, W) float32, normalised; read from disk when needed."""
        return torch.from_numpy(np.load(self.folder / "images.npy", mmap_mode="c"))

    @cached_property
    def labels(self) -> Tensor:
        """Their classes, (N,) int64."""
        return torch.from_numpy(np.load(self.folder / "labels.npy"))

    @cached_property
    def test(self) -> tuple[Tensor, Tensor]:
        """The test images on which each round is evaluated, and their classes."""
        images, labels = (np.load(self.folder / f"test_{name}.npy") for name in ("images", "labels"))
        return torch.from_numpy(images), torch.from_numpy(labels)

    def shard(self, client: int) -> Rows:
        """Return a client's rows among the training images."""
        start, end = self.shards["offsets"][client : client + 2]
        return self.shards["indices"][start:end]

    def ordered(self, round: int, client: int) -> Tensor:
        """Return the rows on which a client trains in a round (from 0), in order, one epoch after another."""
        number = self.settings.cohorts[round].index(client)
        number += sum(len(cohort) for cohort in self.settings.cohorts[:round])
        start, end = self.shards["order_offsets"][number : number + 2]
        return torch.from_numpy(self.shards["orders"][start:end])

    def model(self) -> nn.Module:
        """Return the network with its initial weights, in training mode; only trained parameters require gradients."""
        model = cifar_networks.NETWORKS[self.settings.network](
            self.settings.classes, self.settings.resolution
        )
        model.load_state_dict(torch.load(self.folder / "start.pt", weights_only=True))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in self.settings.trained)
        return model.train()

    def batches(self, round: int, client: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of images and classes on which a client trains in a round."""
        for epoch in self.ordered(round, client).chunk(self.settings.epochs):
            for rows in epoch.split(self.settings.batch):
                yield self.images[rows], self.labels[rows]


@dataclass
class Clock:
    """When each round ended, and how good its weights are; an adapter keeps one and writes it at the end."""

    begun: float = 0.0
    ended: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)

    def begin(self) -> None:
        """Record that the first round begins; later calls are ignored."""
        self.begun = self.begun or time.time()

    def end(self, accuracy: float) -> None:
        """Record that a round has been averaged and evaluated."""
        self.ended.append(time.time())
        self.accuracy.append(accuracy)

    def write(self, out: Path, state: Mapping[str, Tensor], **versions: str) -> None:
        """Write the times, and the final weights."""
        out.mkdir(parents=True, exist_ok=True)
        torch.save({name: tensor.detach().clone() for name, tensor in state.items()}, out / "end.pt")
        said: dict[str, Any] = {**asdict(self), "versions": {"torch": torch.__version__, **versions}}
        (out / "times.json").write_text(json.dumps(said))


def write(
    folder: Path,
    settings: Settings,
    start: nn.Module,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    **shards: Rows,
) -> Work:
    """Write the work into a folder and return it. shards: indices, offsets, orders, order_offsets."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(start.state_dict(), folder / "start.pt")
    named = {"images": train[0], "labels": train[1], "test_images": test[0], "test_labels": test[1]}
    for name, tensor in named.items():
        np.save(folder / f"{name}.npy", tensor.numpy())
    np.savez(folder / "shards.npz", **shards)
    (folder / "work.json").write_text(json.dumps(asdict(settings)))
    return Work(folder, settings)


def judge(model: nn.Module, test: tuple[Tensor, Tensor]) -> float:
    """Return a network's accuracy on the test images; its mode is restored afterwards."""
    mode, right = model.training, 0
    model.eval()
    with torch.inference_mode():
        for x, y in zip(test[0].split(JUDGED_AT_ONCE), test[1].split(JUDGED_AT_ONCE), strict=True):
            right += int((model(x).argmax(1) == y).sum())
    model.train(mode)
    return right / len(test[1])


def train_(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], lr: float) -> None:
    """Train a network on its batches with plain SGD."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr)
    model.train()
    for x, y in batches:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def one_thread() -> None:
    """Give torch one thread: a client has one core in every simulator."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
