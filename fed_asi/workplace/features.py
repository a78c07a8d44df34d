"""The features of a run's frozen trunk, made in the store that all runs share."""

from __future__ import annotations

import os
from pathlib import Path

from torch import fx

from fed_asi import models
from fed_asi.data.features import FeatureSource, FeatureStore, key_of
from fed_asi.data.images import Images, images_fingerprint
from fed_asi.fleets.config import RunConfig
from fed_asi.results.progress import Watcher
from fed_asi.workplace.aside import Check
from fed_asi.workplace.splits import Splits


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


def _source(config: RunConfig, trunk: fx.GraphModule, images: Images) -> FeatureSource:
    mean, std = models.normalisation(config.model.name)
    content = images_fingerprint(images)
    kept = config.compute.features if config.compute.features != "off" else "float32"
    return FeatureSource(trunk, images, content, config.model.resolution, mean, std, kept)


def _features(
    config: RunConfig,
    trunk: fx.GraphModule,
    images: Images,
    store: FeatureStore,
    use: str,
    watcher: Watcher,
    check: Check,
) -> str:
    """Return the key of these images' features in the store, where they are from now on."""
    source = _source(config, trunk, images)
    watcher.stage(f"features of {len(images):,} {use} images", len(images))
    shown = 0

    def progress(done: int, _total: int) -> None:
        nonlocal shown
        check()
        watcher.advance(done - shown)
        shown = done

    store.features(source, progress=progress)
    return key_of(source)


def all_features(
    config: RunConfig,
    trunk: fx.GraphModule,
    splits: Splits,
    store: FeatureStore,
    watcher: Watcher,
    check: Check = lambda: None,
) -> dict[str, str]:
    """Return the keys of the features that the run needs, by use."""
    needed = {"train": splits.train[0], "test": splits.test[0]}
    if config.compute.features == "off":
        del needed["train"]
    return {
        use: _features(config, trunk, images, store, use, watcher, check) for use, images in needed.items()
    }
