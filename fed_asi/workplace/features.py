"""The features of a run's frozen trunk, made in the store that all runs share, and what computes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, fx

from fed_asi import data, models
from fed_asi.data import engines
from fed_asi.data.engines import OnnxRuntime
from fed_asi.data.features import FeatureSource, FeatureStore, key_of
from fed_asi.data.images import Images, images_fingerprint
from fed_asi.errors import ConfigError, MissingDataError, RunError, UnsupportedLayerError
from fed_asi.fleets.config import RunConfig
from fed_asi.gpus import CPU, exact
from fed_asi.layers.copying import copied
from fed_asi.results.progress import Watcher
from fed_asi.workplace.aside import Check
from fed_asi.workplace.placing import trunk_device
from fed_asi.workplace.profiling import batch_of
from fed_asi.workplace.splits import Splits, split_images


def store_path() -> str:
    """Return where trunk features are kept for all runs, as seen from a workplace's folder.

    FED_ASI_FEATURES_DIR, else beside the workplaces that machines share (FED_ASI_WORKPLACE_DIR), else the
    user's cache.
    """
    if os.environ.get("FED_ASI_FEATURES_DIR"):
        return str(Path(os.environ["FED_ASI_FEATURES_DIR"]).resolve())
    if os.environ.get("FED_ASI_WORKPLACE_DIR"):
        return "../features"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(cache.resolve() / "fed_asi" / "features")


@dataclass(frozen=True, slots=True)
class Engine:
    """What computes a run's features: torch where it is None. note: for the run's readers, or empty."""

    computes: OnnxRuntime | None = None
    note: str = ""


def engine_of(config: RunConfig, trunk: fx.GraphModule, public: Images) -> Engine:
    """Return what computes a run's features: what it asks for, or torch where that does not take the trunk.

    trunk: in its quick form, as the run's devices store it. public: the server's images, on some of which the two are
    held against each other. Not for a thread beside others.
    Raises ConfigError where the engine is not installed.
    """
    if config.compute.trunk_engine == "torch":
        return Engine()
    try:
        if config.storage.form != "float32":
            raise UnsupportedLayerError(f"storage.frozen is {config.storage.form}")
        made = engines.onnx_runtime(trunk, batch_of(config, public[: engines.AT_ONCE]))
    except UnsupportedLayerError as error:
        return Engine(note=f"features: computed by torch, ONNX Runtime does not take this trunk: {error}")
    return Engine(made, f"features: computed by {made.about}")


def _source(config: RunConfig, trunk: fx.GraphModule, images: Images, engine: Engine) -> FeatureSource:
    mean, std = models.normalisation(config.model.name)
    content = images_fingerprint(images)
    kept = config.compute.features if config.compute.features != "off" else "float32"
    device = CPU if engine.computes is not None else trunk_device(config)
    trunk = trunk if device == CPU else copied(trunk).to(device)  # a copy, as the run's own is in use
    return FeatureSource(
        trunk, images, content, config.model.resolution, mean, std, kept, engine=engine.computes
    )


def _made(source: FeatureSource, store: FeatureStore, use: str, watcher: Watcher, check: Check) -> Tensor:
    """Return the features of these images, computing them into the store if need be."""
    images = source.images
    watcher.stage(f"features of {len(images):,} {use} images", len(images))
    shown = 0

    def progress(done: int, _total: int) -> None:
        nonlocal shown
        check()
        watcher.advance(done - shown)
        shown = done

    with exact(source.device):  # also in a worker that finds them gone
        return store.features(source, progress=progress)


def all_features(
    config: RunConfig,
    trunk: fx.GraphModule,
    engine: Engine,
    splits: Splits,
    store: FeatureStore,
    watcher: Watcher,
    check: Check = lambda: None,
    uses: Collection[str] = ("train", "test"),
) -> dict[str, str]:
    """Return the keys of the features that the run needs, by use. engine: of `engine_of` for this trunk."""
    needed = {
        use: getattr(splits, use)[0] for use in uses if (use, config.compute.features) != ("train", "off")
    }
    sources = {use: _source(config, trunk, images, engine) for use, images in needed.items()}
    for use, source in sources.items():
        _made(source, store, use, watcher, check)
    return {use: key_of(source) for use, source in sources.items()}


def open_features(
    config: RunConfig,
    quick: Callable[[], fx.GraphModule],
    keys: Mapping[str, str],
    store: FeatureStore,
    data_dir: Path | None,
    watcher: Watcher,
) -> dict[str, Tensor]:
    """Return the run's features by use, memory-mapped; those that are gone from the store are made again, to the bit.

    quick: makes the trunk that made them. keys: of the features in the store, by use. data_dir: where the data set is.
    Raises RunError or MissingDataError where what they are made of is gone, or is not what it was.
    """
    found = {use: store.find(key) for use, key in keys.items()}
    if gone := [use for use, features in found.items() if features is None]:
        trunk = quick()
        splits = _splits_again(config, store, data_dir)
        engine = engine_of(config, trunk, splits.public[0])
        for use in gone:
            images = getattr(splits, use.partition(" ")[0])[0]  # of training images at any resolution
            source = _source(config, trunk, images, engine)
            if key_of(source) != keys[use]:
                raise RunError(
                    f"the features of the {use} images are gone from {store.folder}, and cannot be made again: "
                    "images, weights, torch or the trunk's engine are not those that the run began with; start again"
                )
            found[use] = _made(source, store, use, watcher, lambda: None)
    return {use: features for use, features in found.items() if features is not None}


def _splits_again(config: RunConfig, store: FeatureStore, data_dir: Path | None) -> Splits:
    try:
        return split_images(config, data.load(config.data.source, data_dir))
    except (MissingDataError, ConfigError) as error:
        raise MissingDataError(
            f"the run's features are gone from {store.folder}, and the images they are made of too: {error}"
        ) from error
