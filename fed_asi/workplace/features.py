"""The features of a run's frozen trunk, made in the store that all runs share, and what computes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx

from fed_asi import models
from fed_asi.data import engines
from fed_asi.data.engines import OnnxRuntime
from fed_asi.data.feature_rows import FeatureForm
from fed_asi.data.features import FeatureSource, FeatureStore, key_of
from fed_asi.data.images import Images, images_fingerprint
from fed_asi.data.rows_ahead import Computing, RowsAhead, form_of, takes_any_order
from fed_asi.errors import UnsupportedLayerError
from fed_asi.fleets.config import RunConfig
from fed_asi.gpus import CPU, exact
from fed_asi.layers.copying import copied
from fed_asi.results.progress import Watcher
from fed_asi.workplace.aside import Check
from fed_asi.workplace.needs import Needs
from fed_asi.workplace.placing import trunk_device
from fed_asi.workplace.profiling import batch_of
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


def source_of(config: RunConfig, trunk: fx.GraphModule, images: Images, engine: Engine) -> FeatureSource:
    """Return what features of these images are made of."""
    mean, std = models.normalisation(config.model.name)
    content = images_fingerprint(images)
    kept = config.compute.features if config.compute.features != "off" else "float32"
    device = CPU if engine.computes is not None else trunk_device(config)
    trunk = trunk if device == CPU else copied(trunk).to(device)  # the run's own is at work elsewhere
    return FeatureSource(
        trunk, images, content, config.model.resolution, mean, std, kept, engine=engine.computes
    )


def made(source: FeatureSource, store: FeatureStore, use: str, watcher: Watcher, check: Check) -> Tensor:
    """Return the features of these images, which are in the store from now on."""
    images = source.images
    watcher.stage(f"features of {len(images):,} {use} images", len(images))
    shown = 0

    def progress(done: int, _total: int) -> None:
        nonlocal shown
        check()
        watcher.advance(done - shown)
        shown = done

    with exact(source.device):  # by whoever makes them, a worker that finds them gone among them
        return store.features(source, progress=progress)


@dataclass(frozen=True, slots=True)
class Features:
    """A run's features, by use: keys in the store and, where they are open, tensors. bring, ahead: as a Workplace's."""

    keys: Mapping[str, str]
    tensors: Mapping[str, Tensor] | None = None
    bring: Callable[[Tensor], None] | None = None
    ahead: RowsAhead | None = None


def all_features(
    config: RunConfig,
    trunk: fx.GraphModule,
    engine: Engine,
    splits: Splits,
    store: FeatureStore,
    watcher: Watcher,
    needs: Needs | None = None,
    check: Check = lambda: None,
) -> Features:
    """Return the features that the run needs. engine: of `engine_of` for this trunk.

    needs: rows of the training images; the first of them are there when this returns, the others are computed from now
    on. None: all are there, as they are where the trunk takes images in their own order alone.
    """
    needed = {"train": splits.train[0], "test": splits.test[0]}
    if config.compute.features == "off":
        del needed["train"]
    sources = {use: source_of(config, trunk, images, engine) for use, images in needed.items()}
    keys = {use: key_of(source) for use, source in sources.items()}
    train = sources.get("train")
    if needs is None or train is None:
        for use, source in sources.items():
            made(source, store, use, watcher, check)
        return Features(keys)
    test, whole = made(sources["test"], store, "test", watcher, check), store.find(keys["train"])
    if whole is None and not takes_any_order(train):
        whole = made(train, store, "train", watcher, check)
    show(needs, len(train.images), watcher)
    if whole is not None:
        watcher.advance(len(needs.first))
        return Features(keys, {"test": test, "train": whole})
    ahead = begun(store, form_of(train), lambda: train, needs, watcher, check)
    return Features(keys, {"test": test, "train": ahead.features}, ahead.bring, ahead)


def show(needs: Needs, images: int, watcher: Watcher) -> None:
    """Say that the first of the features are being computed; the same words whatever is there already."""
    if first := len(needs.first):
        watcher.stage(f"features of the first {first:,} of {images:,} train images", first)


def begun(
    store: FeatureStore,
    form: FeatureForm,
    source: Callable[[], FeatureSource],
    needs: Needs,
    watcher: Watcher,
    check: Check,
) -> RowsAhead:
    """Return what computes features by need once the first of them are there."""
    ahead = RowsAhead(store, form, Computing(source), needs.rows)
    try:
        for some in torch.split(torch.from_numpy(needs.first), ahead.at_once):
            check()
            ahead.bring(some)
            watcher.advance(len(some))
    except BaseException:
        ahead.close()
        raise
    return ahead
