"""What training needs at one place: the trained tail, the inputs it is fed, labels, shards and plans.

The server prepares it once under runs/NAME/workplace/; every worker process opens it once and keeps it, so a
message carries only the trained tensors and a small job. Large arrays are memory-mapped and shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from fed_asi.data.rows_ahead import RowsAhead
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
from fed_asi.workplace.features import Features
from fed_asi.workplace.features_again import Sources
from fed_asi.workplace.placing import kept_there, room_bytes
from fed_asi.workplace.shard import Rows, Shard, shard_of
from fed_asi.workplace.storing import quick_trunk

VERSION = 1


MANIFEST, IMAGES = "manifest.json", "images.npy"


Opened = Callable[[Sources, Watcher], Features]


@dataclass(frozen=True, slots=True)
class WholeNetwork:
    """What stands in for stored features where they are off: the trunk, and the images it sees each time."""

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
    """Everything `train_locally` and the server's evaluation need; opened once per process.

    tail: the trained part, shared by all work in this process, one job at a time. features: (N, ...) of the
    training images; test_features: of those the server judges by. reference: initial values of every tensor
    that some device may train, by name. notes: what the report should say. whole: set where features are off.
    own_plans: those from other profiles than the server's, kept by file name. kept: what else is made once a process.
    device: where the tail is and steps compute; features are there too, their labels with them, or on the CPU.
    bring, fetch: bring rows of features, or a file, from where the workplace is (afar.py); None: it is here. Rows that
    are computed while rounds go on are brought too. ahead: computes them, in the run's own process.
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
    ahead: RowsAhead | None = None

    def file(self, name: str) -> Path:
        """Return a file of the workplace that was written after it was opened, brought here first where it must be."""
        if self.fetch is not None:
            self.fetch(name)
        return self.folder / name

    def shard(self, partition_id: int) -> Shard:
        """Return a device's rows; the holdout is drawn once, and training keeps at least one row."""
        return shard_of(self.config, self.shards, partition_id)

    def need(self, rows: Rows) -> None:
        """Return once the features of these rows are here. Raises RunError where they cannot be."""
        if self.bring is not None:
            self.bring(torch.from_numpy(rows))

    def need_of(self, partition_ids: Iterable[int]) -> None:
        """Return once the features of these devices' images are here. Raises RunError where they cannot be."""
        if self.bring is not None:
            self.need(np.concatenate([np.zeros(0, np.int64), *(self.shards[one] for one in partition_ids)]))

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Compute features ahead of the rounds, beside them, until the block ends."""
        try:
            if self.ahead is not None:
                self.ahead.yield_to_others()
            yield
        finally:
            if self.ahead is not None:
                self.ahead.close()

    def on(self, device: torch.device) -> Workplace:
        """Return the same workplace on a device: its network, which is moved, and the features that fit there."""
        if device == self.device:
            return self
        room = room_bytes(self.config, device)
        coming = self.bring is not None  # rows that are yet to come stay where they come to
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
        """Return the numbers of some images as a tensor where labels and features are looked up by them."""
        return sent(torch.from_numpy(numbers), self.labels.device)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tail's inputs of these rows, and their labels, on the device."""
        return self.inputs(rows), sent(self.labels[rows], self.device)

    def inputs(self, rows: Tensor) -> Tensor:
        """Return the tail's inputs of these rows, float32, copied; images channels last, which is quicker."""
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
    features: Features | None = None,
    opened: Opened = Sources.open,
    fetch: Callable[[str], None] | None = None,
) -> Workplace:
    """Return the workplace that `prepare` wrote; features that were removed since are made again.

    folder: runs/NAME/workplace. config: of the run; None reads it from the folder. data_dir: where the data set is,
    should it be needed; None: where it was. features: None: those in the store, as `opened` gives them: whole.
    fetch: the workplace's.
    Raises RunError where it is missing, unfinished, damaged, of another version or of other settings.
    """
    manifest = _read_manifest(folder)
    with _naming(folder):
        config = _config_of(folder, manifest, config)
        if config.storage.frozen == "any":
            config = config.stored_as(format_of(manifest["storage"]))
        _ = config.method.families  # known from here on, also where they are a user's own
        off = config.compute.features == "off"
        trunk, tail = rebuild(config, manifest, read_tensors(folder / "base.pt"))
        with (folder / "index.npz").open("rb") as file, np.load(file) as index:
            arrays = {name: index[name] for name in index.files}
        profile = Profile.load(folder / "profile.json")
        whole, quick = None, partial(quick_trunk, config, trunk, manifest)
        if off:
            whole = WholeNetwork(quick(), np.load(folder / IMAGES, mmap_mode="r"), config)
        keys = {"test": manifest["test_features"]} | ({} if off else {"train": manifest["features"]})
    shards = Shards(arrays["indices"], arrays["offsets"])
    if features is None:
        store = FeatureStore(folder / manifest["store"], config.compute.features_limit)
        where = data_dir or (Path(manifest["data_dir"]) if manifest.get("data_dir") else None)
        features = opened(Sources(config, quick, keys, store, where, shards), watcher or Unwatched())
    tensors = features.tensors or {}
    place = Workplace(
        config=config,
        folder=folder,
        num_classes=int(manifest["num_classes"]),
        tail=tail,
        features=tensors.get("train"),
        labels=torch.from_numpy(arrays["labels"]),
        test_features=tensors["test"],
        test_labels=torch.from_numpy(arrays["test_labels"]),
        shards=shards,
        plans=plans_of(config, profile, benches_of(config, trunk, tail)),
        reference=reference_of(tail, profile),
        notes=tuple(manifest["notes"]),
        whole=whole,
        bring=features.bring,
        fetch=fetch,
        ahead=features.ahead,
    )
    return place.on(device_named(config.compute.device))


def _config_of(folder: Path, manifest: Mapping[str, Any], config: RunConfig | None) -> RunConfig:
    config = config or RunConfig.from_json((folder / "config.json").read_text())
    if manifest["fingerprint"] != run_fingerprint(config):
        raise RunError("it was prepared for other settings")
    return config


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Turn whatever is wrong with a workplace's files into one line that names the folder, and says what to do."""
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
    """Return the fingerprint of the settings that a workplace was prepared for, as they were given.

    The opened one may say more: what they left open, the format of what is stored, is chosen there.
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
    seed = seeds.derive(config.seed, "weights")  # as it was built: a network may be drawn by it
    model = models.build(config.model.name, int(manifest["num_classes"]), resolution=resolution, seed=seed)
    model.load_state_dict(dict(base))
    example = torch.zeros(1, 3, resolution, resolution)
    return cut.cut(model.eval(), manifest["trained"], example)


def reference_of(tail: fx.GraphModule, profile: Profile) -> dict[str, Tensor]:
    """Return copies of every tensor that some plan from this profile trains, in the tail's order."""
    names = set(tune_(tail, {layer.name: Vanilla() for layer in profile.layers}))
    return {name: p.detach().clone() for name, p in tail.named_parameters() if name in names}
