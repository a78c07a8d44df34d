"""From the files of a workplace to the Workplace: read, checked, rebuilt and fed with features."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, fx

from fed_asi import models, seeds
from fed_asi.compression import cut
from fed_asi.compression.tune import tune_
from fed_asi.data.features import FeatureStore
from fed_asi.data.shards import Shards
from fed_asi.errors import FedAsiError, RunError, first_line
from fed_asi.files import read_tensors
from fed_asi.fleets.config import RunConfig
from fed_asi.gpus import device_named
from fed_asi.memory.stored import format_of
from fed_asi.methods import Vanilla
from fed_asi.planning.profile import Profile
from fed_asi.results.progress import Unwatched, Watcher
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.benches import benches_of
from fed_asi.workplace.features import Features
from fed_asi.workplace.features_again import Sources
from fed_asi.workplace.place import WholeNetwork, Workplace
from fed_asi.workplace.profiling import plans_at
from fed_asi.workplace.storing import quick_trunk
from fed_asi.workplace.uses import TEST, TRAIN, train_at

VERSION = 1


MANIFEST, IMAGES, PROFILE = "manifest.json", "images.npy", "profile.json"
RESOLUTIONS = "resolutions"  # in the manifest: what there is of each beside the model's own


Opened = Callable[[Sources, Watcher], Features]


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
    """Return the workplace that `prepare` wrote; features that have been removed are recomputed.

    folder: runs/NAME/workplace. config: of the run; None reads it from the folder. data_dir: where the data set is,
    if it is needed; None: where it was. features: None: those in the store, as `opened` returns them at each
    resolution: by default complete. fetch: as in Workplace.
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
    shards, taken = Shards(arrays["indices"], arrays["offsets"]), arrays.get("resolutions")
    if features is None:
        store = FeatureStore(folder / manifest["store"], config.compute.features_limit)
        where = data_dir or (Path(manifest["data_dir"]) if manifest.get("data_dir") else None)
        features = Features()
        for one in sights:
            sources = Sources(one.config, one.quick, one.use, one.keys, store, where, shards, taken)
            features |= opened(sources, watcher or Unwatched())
    reference = reference_of(tail, sights[0].profile)  # of the same layers at every resolution
    places = [
        Workplace(
            config=one.config,
            folder=folder,
            num_classes=int(manifest["num_classes"]),
            tail=tail,
            features=features.tensors.get(one.use),
            labels=torch.from_numpy(arrays["labels"]),
            test_features=features.tensors[TEST],
            test_labels=torch.from_numpy(arrays["test_labels"]),
            shards=shards,
            plans=plans_at(one.config, one.profile, benches_of(one.config, trunk, tail), len(sights) > 1),
            reference=reference,
            notes=tuple(manifest["notes"]),
            whole=one.whole,
            bring=features.bring.get(one.use),
            fetch=fetch,
        )
        for one in sights
    ]
    views = {one.resolution: one for one in places[1:]}
    own = replace(places[0], resolutions=taken, views=views)
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
        keys = {} if pixels else {TEST: manifest["test_features"]}
        keys |= {use: said["features"]} if images is None else {}
        whole = None if images is None else WholeNetwork(quick(), images, at)
        yield _Sight(at, use, keys, Profile.load(folder / name), quick, whole)


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
