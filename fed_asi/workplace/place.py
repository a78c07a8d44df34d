"""What training needs at one place: the trained tail, its inputs, labels, shards and plans.

The server prepares it once under runs/NAME/workplace/. Every worker process opens it once and keeps it open, so a
message carries only the trained tensors and a small job. Large arrays are memory-mapped and shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from fed_asi import models, seeds
from fed_asi.compression import cut
from fed_asi.compression.tune import tune_
from fed_asi.data.features import FeatureStore
from fed_asi.data.images import to_batch
from fed_asi.data.shards import Shards
from fed_asi.errors import FedAsiError, RunError, first_line
from fed_asi.files import read_tensors
from fed_asi.fleets.config import RunConfig
from fed_asi.gpus import CPU, device_named, device_of, sent
from fed_asi.memory.stored import format_of
from fed_asi.methods import Vanilla
from fed_asi.planning.device_plans import DevicePlans, plans_of
from fed_asi.planning.profile import Profile
from fed_asi.results.progress import Unwatched, Watcher
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.benches import benches_of
from fed_asi.workplace.features import open_features
from fed_asi.workplace.placing import kept_there, room_bytes
from fed_asi.workplace.storing import quick_trunk

VERSION = 1


MANIFEST, IMAGES = "manifest.json", "images.npy"


Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shard:
    """A device's rows: those it trains on, and those held out for its local accuracy."""

    train: Rows
    holdout: Rows


@dataclass(frozen=True, slots=True)
class WholeNetwork:
    """Stands in for stored features if they are off: the trunk, and the images that it computes each time."""

    trunk: fx.GraphModule
    images: NDArray[np.uint8]
    config: RunConfig

    def inputs(self, rows: Tensor, device: torch.device) -> Tensor:
        """Return the trunk's output for these rows, on a device."""
        mean, std = models.normalisation(self.config.model.name)
        with torch.inference_mode():
            batch = to_batch(self.images[rows.numpy()], self.config.model.resolution, mean, std)
            found: Tensor = self.trunk(sent(batch, device_of(self.trunk)))
        return sent(found.clone(), device)


@dataclass(frozen=True, slots=True)
class Workplace:
    """Everything that `train_locally` and the server's evaluation need; opened once a process.

    tail: the trained part, shared by all work in this process, one job at a time. features: (N, ...) of the
    training images; test_features: of the server's test images. reference: initial values of every tensor
    that some device may train, by name. notes: for the report. whole: set if features are off.
    own_plans: plans from other profiles than the server's, by file name. kept: a cache for whatever else is made
    once.
    device: where the tail is and steps compute; features and their labels are there too, or on the CPU.
    bring, fetch: fetch rows of features, or a file, from the machine that has the workplace (afar.py); None: it is
    here.
    """

    config: RunConfig
    folder: Path
    num_classes: int
    tail: fx.GraphModule
    features: Tensor | None
    labels: Tensor
    test_features: Tensor
    test_labels: Tensor
    shards: Shards
    plans: DevicePlans
    reference: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()
    whole: WholeNetwork | None = None
    own_plans: dict[str, DevicePlans] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)
    device: torch.device = CPU
    bring: Callable[[Tensor], None] | None = None
    fetch: Callable[[str], None] | None = None

    def file(self, name: str) -> Path:
        """Return the path of a file that was written after the workplace was opened, fetched first if need be."""
        if self.fetch is not None:
            self.fetch(name)
        return self.folder / name

    def shard(self, partition_id: int) -> Shard:
        """Return a device's rows; the held-out rows are drawn once, and at least one row is left for training."""
        rows = self.shards[partition_id]
        held = min(int(len(rows) * self.config.data.holdout), len(rows) - 1)
        if not held:
            return Shard(np.sort(rows), rows[:0])  # whatever the draw
        order = seeds.rng(self.config.seed, "holdout", partition_id).permutation(rows)
        return Shard(np.sort(order[held:]), np.sort(order[:held]))

    def on(self, device: torch.device) -> Workplace:
        """Return the same workplace on a device: its network is moved, with as many features as fit."""
        if device == self.device:
            return self
        room = room_bytes(self.config, device)
        coming = self.bring is not None  # rows that are still to be fetched stay on the CPU
        features, tests = kept_there((None if coming else self.features, self.test_features), device, room)
        features = self.features if features is None else features
        labels = self.labels.to(CPU if features is None else features.device)
        whole = self.whole
        if whole is not None and self.config.storage.form != "int8":  # see trunk_device
            whole = replace(whole, trunk=whole.trunk.to(device))
        return replace(
            self,
            tail=self.tail.to(device),
            features=features,
            labels=labels,
            test_features=self.test_features if tests is None else tests,
            whole=whole,
            device=device,
        )

    def rows(self, numbers: Rows) -> Tensor:
        """Return row numbers as a tensor on the device where labels and features are looked up."""
        return sent(torch.from_numpy(numbers), self.labels.device)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tail's inputs of these rows, and their labels, on the device."""
        return self.inputs(rows), sent(self.labels[rows], self.device)

    def inputs(self, rows: Tensor) -> Tensor:
        """Return the tail's inputs for these rows, float32, copied; images are channels last, which is quicker."""
        if self.bring is not None:
            self.bring(rows)
        if self.features is not None:
            found = sent(self.features[rows], self.device).float()
        elif self.whole is not None:
            found = self.whole.inputs(rows, self.device)
        else:
            raise RunError(f"{self.folder} has neither features nor images")
        return found.contiguous(memory_format=torch.channels_last) if found.dim() == 4 else found


def open_workplace(
    folder: Path,
    config: RunConfig | None = None,
    *,
    data_dir: Path | None = None,
    watcher: Watcher | None = None,
    features: Mapping[str, Tensor] | None = None,
    bring: Callable[[Tensor], None] | None = None,
    fetch: Callable[[str], None] | None = None,
) -> Workplace:
    """Return the workplace that `prepare` wrote; features that have been removed are recomputed.

    folder: runs/NAME/workplace. config: of the run; None reads it from the folder. data_dir: where the data set is,
    if it is needed; None: where it was. features: by use; None: those in the store. bring, fetch: as in Workplace.
    Raises RunError where it is missing, unfinished, damaged, of another version or of other settings.
    """
    manifest = _read_manifest(folder)
    with _naming(folder):
        config = _config_of(folder, manifest, config)
        if config.storage.frozen == "any":
            config = config.stored_as(format_of(manifest["storage"]))
        _ = config.method.families  # makes a user's own methods known
        off = config.compute.features == "off"
        trunk, tail = rebuild(config, manifest, read_tensors(folder / "base.pt"))
        with (folder / "index.npz").open("rb") as file, np.load(file) as index:
            arrays = {name: index[name] for name in index.files}
        profile = Profile.load(folder / "profile.json")
        whole, quick = None, partial(quick_trunk, config, trunk, manifest)
        if off:
            whole = WholeNetwork(quick(), np.load(folder / IMAGES, mmap_mode="r"), config)
        keys = {"test": manifest["test_features"]} | ({} if off else {"train": manifest["features"]})
    if features is None:
        store = FeatureStore(folder / manifest["store"], config.compute.features_limit)
        where = data_dir or (Path(manifest["data_dir"]) if manifest.get("data_dir") else None)
        features = open_features(config, quick, keys, store, where, watcher or Unwatched())
    place = Workplace(
        config=config,
        folder=folder,
        num_classes=int(manifest["num_classes"]),
        tail=tail,
        features=features.get("train"),
        labels=torch.from_numpy(arrays["labels"]),
        test_features=features["test"],
        test_labels=torch.from_numpy(arrays["test_labels"]),
        shards=Shards(arrays["indices"], arrays["offsets"]),
        plans=plans_of(config, profile, benches_of(config, trunk, tail)),
        reference=reference_of(tail, profile),
        notes=tuple(manifest["notes"]),
        whole=whole,
        bring=bring,
        fetch=fetch,
    )
    return place.on(device_named(config.compute.device))


def _config_of(folder: Path, manifest: Mapping[str, Any], config: RunConfig | None) -> RunConfig:
    config = config or RunConfig.from_json((folder / "config.json").read_text())
    if manifest["fingerprint"] != run_fingerprint(config):
        raise RunError("it was prepared for other settings")
    return config


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Turn any error in a workplace's files into one line that names the folder and says what to do."""
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, FedAsiError) as error:
        raise RunError(
            f"{folder} cannot be used ({first_line(error)}): remove it, and it is made again on --resume"
        ) from error


def is_prepared(folder: Path, config: RunConfig) -> bool:
    """Return whether the folder holds a finished workplace for these settings."""
    try:
        return prepared_for(folder) == run_fingerprint(config)
    except RunError:
        return False


def prepared_for(folder: Path) -> str:
    """Return the fingerprint of the settings for which a workplace was prepared, as they were given.

    The opened workplace may have more: a storage format that they left open is chosen there.
    Raises RunError where nothing is prepared.
    """
    return str(_read_manifest(folder)["fingerprint"])


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"no prepared workplace in {folder}") from error
    if not isinstance(manifest, dict) or manifest.get("version") != VERSION:
        raise RunError(f"{folder / MANIFEST} is of another version; remove the folder and start again")
    return manifest


def rebuild(
    config: RunConfig, manifest: Mapping[str, Any], base: Mapping[str, Tensor]
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Return the frozen and the trained part of the network, with the weights from before the first round."""
    resolution = config.model.resolution
    seed = seeds.derive(config.seed, "weights")  # as when it was built: a network may draw from it
    model = models.build(config.model.name, int(manifest["num_classes"]), resolution=resolution, seed=seed)
    model.load_state_dict(dict(base))
    example = torch.zeros(1, 3, resolution, resolution)
    return cut.cut(model.eval(), manifest["trained"], example)


def reference_of(tail: fx.GraphModule, profile: Profile) -> dict[str, Tensor]:
    """Return copies of every tensor that some plan from this profile trains, in the tail's order."""
    names = set(tune_(tail, {layer.name: Vanilla() for layer in profile.layers}))
    return {name: p.detach().clone() for name, p in tail.named_parameters() if name in names}
