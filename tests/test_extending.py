"""Extensions from outside the package: a method, a kind of layer, a network, a data set, a sharding scheme, a policy.

Each is a few lines of the user's own and one `register`; one fleet uses them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from fed_asi import data, layers, methods, models
from fed_asi.data import shards
from fed_asi.data.dataset import from_arrays
from fed_asi.errors import ConfigError
from fed_asi.fleets import over_budget
from fed_asi.fleets.file import load_config
from fed_asi.layers.compressed import run
from fed_asi.layers.conv import ConvKind, operation_of
from fed_asi.methods.forms import Kept
from fed_asi.results import report
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop
from fed_asi.training.steps import SCALARS
from fed_asi.workplace.address import workplace_folder
from fed_asi.workplace.opening import open_workplace


@dataclass(slots=True)
class SignsKept(Kept):
    """One byte an element, and how large they are."""

    def restore(self) -> Tensor:
        signs, size = self.tensors
        return signs.to(size.dtype) * size


@dataclass(frozen=True, slots=True)
class Signs(methods.Method):
    """The signs of the input, and the mean of its absolute values in each sample."""

    kind: ClassVar[str] = "signs"
    scale: float = 1.0

    def form(self, x: Tensor, keeper: methods.Keeper) -> Kept:
        size = x.abs().mean(dim=tuple(range(1, x.dim())), keepdim=True) * self.scale
        return SignsKept((x.sign().to(torch.int8), size))

    def kept_bytes(self, dims: Sequence[int], dtype: torch.dtype) -> int:
        return int(np.prod(dims)) + dims[0] * dtype.itemsize

    def published_bytes(
        self, size: methods.LayerSize, ranks: Sequence[int] = (), element_bytes: int = 4
    ) -> int:
        return int(np.prod(size.dims)) + size.dims[0] * element_bytes

    @classmethod
    def propose(
        cls, seen: methods.LayerInput, scale: float = 1.0
    ) -> Iterator[tuple[methods.Method, float | None]]:
        if not seen.head:
            yield cls(scale), None


class OwnConv(nn.Conv2d):
    """A layer of the user's own class."""


class CompressedOwnConv(OwnConv):
    def forward(self, input: Tensor) -> Tensor:
        return run(self, input, operation_of(self, input), 4)


class OwnConvKind(ConvKind):
    original = OwnConv
    compressed = CompressedOwnConv


class Net(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.own = OwnConv(6, 8, 3, padding=1)
        self.bn, self.relu = nn.BatchNorm2d(8), nn.ReLU()
        self.pool, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.relu(self.bn(self.own(torch.relu(self.stem(x)))))).flatten(1))


def blobs(_folder: Path | None, _size: int) -> data.Dataset:
    """Images whose mean colour says their class."""
    draws = np.random.default_rng(0)
    labels = np.arange(160) % 4
    images = draws.integers(0, 120, (160, 16, 16, 3)) + 30 * labels[:, None, None, None]
    x = images.astype(np.uint8)
    return from_arrays("blobs", (x[:120], labels[:120]), (x[120:], labels[120:]), list("abcd"))


@dataclass(frozen=True, slots=True)
class InTurns:
    """Sample i goes to device i // block modulo the number of devices."""

    block: int = 1
    minimum: int = 1

    def owners(self, labels: np.ndarray, num_devices: int, rng: np.random.Generator) -> np.ndarray:
        return np.arange(len(labels), dtype=np.int64) // self.block % num_devices


def half_the_batch(resources: over_budget.Resources, offer: over_budget.Offer) -> Iterator[over_budget.Try]:
    """Try again in micro-batches of one."""
    yield over_budget.Try(replace(resources, micro_batch=1), offer.grid)


FLEET = """
name = "own"
rounds = 2
cohort = 3
[model]
name = "own-net"
weights = "none"
resolution = 16
[data]
source = "blobs"
public = 16
[sharding]
scheme = "in-turns"
block = 2
[method]
name = "signs"
scale = 0.8
layers = ["own"]
over_budget = "half-the-batch"
calibration_images = 16
[compute]
backend = "loop"
[[groups]]
name = "tight"
count = 2
budget = "3 KiB"
batch_size = 8
micro_batch = 8
[[groups]]
name = "roomy"
count = 1
budget = "unlimited"
batch_size = 8
"""


@pytest.fixture
def registered(own_names: None) -> None:
    methods.register(Signs)
    layers.register(OwnConvKind())
    models.register("own-net", lambda num_classes, _resolution: Net(num_classes), resolution=16)
    data.register("blobs", blobs)
    shards.register("in-turns", InTurns)
    over_budget.register("half-the-batch", half_the_batch, smaller=True)


def test_one_run_uses_what_was_registered_from_profile_to_report(
    registered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    (tmp_path / "own.toml").write_text(FLEET)
    config = load_config(tmp_path / "own.toml")
    folder = tmp_path / "own"
    run_loop(config, folder)
    place = open_workplace(workplace_folder(folder))
    own = place.plans.profile.layer("own")
    assert {c.method.kind for found in own.candidates.values() for c in found} == {"signs"}
    assert list(place.shards[0][:4]) == [0, 1, 6, 7]
    with RunStore.read(folder) as store:
        rows = list(store.device_rounds())
        assert store.exit_code() == 0
    assert {row.outcome for row in rows} == {"trained"}
    assert {row.method for row in rows} == {"signs+vanilla"}
    assert {row.policy for row in rows if row.budget_bytes is not None} == {"half-the-batch"}
    assert all(0 <= row.planned_bytes - row.measured_bytes <= SCALARS for row in rows)
    with (tmp_path / "shown.txt").open("w") as file:
        report.show(folder, Console(file=file, width=140))
    assert "tight" in (tmp_path / "shown.txt").read_text()
    assert "signs" in report.write([folder]).read_text()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("method.scale=big", "method: method 'signs'"),
        ("method.scales=1.0", "method.scales: unknown key; did you mean scale?"),
        ("method.name=sings", "method.name: unknown 'sings'; did you mean signs?"),
        ("sharding.blok=3", "sharding.blok: unknown key; did you mean block?"),
        ("model.name=own-nett", "model.name: unknown network 'own-nett'; did you mean own-net?"),
        (
            "method.over_budget=half-a-batch",
            "method.over_budget: unknown 'half-a-batch'; did you mean half-the-batch?",
        ),
    ],
)
def test_mistakes_with_what_was_registered_are_named(
    registered: None, tmp_path: Path, change: str, problem: str
) -> None:
    (tmp_path / "own.toml").write_text(FLEET)
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "own.toml", [change])
    assert any(text.startswith(problem) for text in caught.value.problems), caught.value.problems
