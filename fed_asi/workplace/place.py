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
from fed_asi.planning.device_plans import DevicePlans
from fed_asi.planning.profile import Profile
from fed_asi.results.progress import Unwatched, Watcher
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.benches import benches_of
from fed_asi.workplace.features import open_features
from fed_asi.workplace.placing import kept_there, room_bytes
from fed_asi.workplace.profiling import plans_at
from fed_asi.workplace.storing import quick_trunk

VERSION = 1


MANIFEST, IMAGES, PROFILE = "manifest.json", "images.npy", "profile.json"
TRAIN = "train"  # the use of features that devices train on
RESOLUTIONS = "resolutions"  # in the manifest: what there is of each beside the model's own


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
    own_plans: plans from other profiles than the server's, by file name. kept: a cache for whatever else is made once.
    device: where the tail is and steps compute; features and their labels are there too, or on the CPU.
    bring, fetch: fetch rows of features, or a file, from the machine that has the workplace (afar.py); None: it is
    here. resolutions: of every device, by partition_id; None: all train at the model's. views: the same workplace at
    each of the others.
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
    resolutions: NDArray[np.int16] | None = None
    views: Mapping[int, Workplace] = field(default_factory=dict)

    def seen_by(self, partition_id: int) -> Workplace:
        """Return the workplace at a device's resolution: its own settings, features and plans, one tail for all."""
        if self.resolutions is None:
            return self
        return self.views.get(int(self.resolutions[partition_id]), self)

    @property
    def resolution(self) -> int:
        """Pixels, high and wide, of the images that go into the trunk here."""
        return self.config.model.resolution

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
        every = [self, *self.views.values()]
        # Rows that are yet to come stay where they come to.
        coming = [None if one.bring is not None else one.features for one in every]
        features, tests, *others = kept_there((coming[0], self.test_features, *coming[1:]), device, room)
        here = [one._on(device, there) for one, there in zip(every, (features, *others), strict=True)]
        own = replace(here[0], views=dict(zip(self.views, here[1:], strict=True)))
        return own if tests is None else replace(own, test_features=tests)

    def _on(self, device: torch.device, features: Tensor | None) -> Workplace:
        """Return this resolution alone on a device. features: those that fit there; None: they stay."""
        features = self.features if features is None else features
        whole = self.whole
        if whole is not None and self.config.storage.form != "int8":  # see trunk_device
            whole = replace(whole, trunk=whole.trunk.to(device))
        return replace(
            self,
            tail=self.tail.to(device),
            features=features,
            labels=self.labels.to(CPU if features is None else features.device),
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
    bring: Mapping[str, Callable[[Tensor], None]] | None = None,
    fetch: Callable[[str], None] | None = None,
) -> Workplace:
    """Return the workplace that `prepare` wrote; features that have been removed are recomputed.

    folder: runs/NAME/workplace. config: of the run; None reads it from the folder. data_dir: where the data set is,
    if it is needed; None: where it was. features: by use; None: those in the store. bring, by use, and fetch: as in
    Workplace.
    Raises RunError where it is missing, unfinished, damaged, of another version or of other settings.
    """
    manifest = _read_manifest(folder)
    with _naming(folder):
        config = _config_of(folder, manifest, config)
        if config.storage.frozen == "any":
            config = config.stored_as(format_of(manifest["storage"]))
        _ = config.method.families  # makes a user's own methods known
        trunk, tail = rebuild(config, manifest, read_tensors(folder / "base.pt"))
        with (folder / "index.npz").open("rb") as file, np.load(file) as index:
            arrays = {name: index[name] for name in index.files}
        sights = list(_sights(folder, config, manifest, trunk))
    if features is None:
        store = FeatureStore(folder / manifest["store"], config.compute.features_limit)
        where = data_dir or (Path(manifest["data_dir"]) if manifest.get("data_dir") else None)
        features = {}
        for one in sights:
            features |= open_features(one.config, one.quick, one.keys, store, where, watcher or Unwatched())
    reference = reference_of(tail, sights[0].profile)  # of the same layers at every resolution
    places = [
        Workplace(
            config=one.config,
            folder=folder,
            num_classes=int(manifest["num_classes"]),
            tail=tail,
            features=features.get(one.use),
            labels=torch.from_numpy(arrays["labels"]),
            test_features=features["test"],
            test_labels=torch.from_numpy(arrays["test_labels"]),
            shards=Shards(arrays["indices"], arrays["offsets"]),
            plans=plans_at(one.config, one.profile, benches_of(one.config, trunk, tail), len(sights) > 1),
            reference=reference,
            notes=tuple(manifest["notes"]),
            whole=one.whole,
            bring=(bring or {}).get(one.use),
            fetch=fetch,
        )
        for one in sights
    ]
    views = {one.resolution: one for one in places[1:]}
    own = replace(places[0], resolutions=arrays.get("resolutions"), views=views)
    return own.on(device_named(config.compute.device))


@dataclass(frozen=True, slots=True)
class _Sight:
    """What of a workplace's files is of one resolution. use: of its training images. keys: of features, by use.

    quick: makes the trunk that made them. whole: that trunk and the images, where features are off.
    """

    config: RunConfig
    use: str
    keys: Mapping[str, str]
    profile: Profile
    quick: Callable[[], fx.GraphModule]
    whole: WholeNetwork | None


def _sights(
    folder: Path, config: RunConfig, manifest: Mapping[str, Any], trunk: fx.GraphModule
) -> Iterator[_Sight]:
    """Yield what there is of the model's own resolution, then of each other that some device takes."""
    images = np.load(folder / IMAGES, mmap_mode="r") if config.compute.features == "off" else None
    for pixels, said in {"": manifest, **manifest.get(RESOLUTIONS, {})}.items():
        at = config.seen_at(int(pixels)) if pixels else config
        use, name = (train_at(int(pixels)), profile_at(int(pixels))) if pixels else (TRAIN, PROFILE)
        quick = partial(quick_trunk, at, trunk, said)
        keys = {} if pixels else {"test": manifest["test_features"]}
        keys |= {use: said["features"]} if images is None else {}
        whole = None if images is None else WholeNetwork(quick(), images, at)
        yield _Sight(at, use, keys, Profile.load(folder / name), quick, whole)


def train_at(pixels: int) -> str:
    """Return the use of training images at another resolution than the model's, as features are told by it."""
    return f"{TRAIN} at {pixels}"


def profile_at(pixels: int) -> str:
    """Return the file of the profile at another resolution than the model's."""
    return f"profile-{pixels}.json"


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
    resolution = manifest.get("resolution", config.model.resolution)  # where the network was cut
    seed = seeds.derive(config.seed, "weights")  # as when it was built: a network may draw from it
    model = models.build(config.model.name, int(manifest["num_classes"]), resolution=resolution, seed=seed)
    model.load_state_dict(dict(base))
    example = torch.zeros(1, 3, resolution, resolution)
    return cut.cut(model.eval(), manifest["trained"], example)


def reference_of(tail: fx.GraphModule, profile: Profile) -> dict[str, Tensor]:
    """Return copies of every tensor that some plan from this profile trains, in the tail's order."""
    names = set(tune_(tail, {layer.name: Vanilla() for layer in profile.layers}))
    return {name: p.detach().clone() for name, p in tail.named_parameters() if name in names}
