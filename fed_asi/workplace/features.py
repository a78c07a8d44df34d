"""The features of a run's frozen trunk, made in the store that all runs share, and what computes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
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
from fed_asi.workplace.uses import TEST, TRAIN, images_of, split_of


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
    """Return what the features of these images are computed from."""
    mean, std = models.normalisation(config.model.name)
    content = images_fingerprint(images)
    kept = config.compute.features if config.compute.features != "off" else "float32"
    device = CPU if engine.computes is not None else trunk_device(config)
    trunk = trunk if device == CPU else copied(trunk).to(device)  # a copy, as the run's own is in use
    return FeatureSource(
        trunk, images, content, config.model.resolution, mean, std, kept, engine=engine.computes
    )


def made(source: FeatureSource, store: FeatureStore, use: str, watcher: Watcher, check: Check) -> Tensor:
    """Return the features of these images, computing them into the store if need be."""
    images = source.images
    watcher.stage(f"features of {len(images):,} {images_of(use)}", len(images))
    shown = 0

    def progress(done: int, _total: int) -> None:
        nonlocal shown
        check()
        watcher.advance(done - shown)
        shown = done

    with exact(source.device):  # also in a worker that finds them gone
        return store.features(source, progress=progress)


@dataclass(frozen=True, slots=True)
class Features:
    """A run's features by use: open tensors, their keys in the store, and what brings rows of those not complete."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    bring: Mapping[str, Callable[[Tensor], None]] = field(default_factory=dict)

    def __or__(self, others: Features) -> Features:
        """Return these and others."""
        return Features(
            {**self.tensors, **others.tensors}, {**self.keys, **others.keys}, {**self.bring, **others.bring}
        )


@dataclass(frozen=True, slots=True)
class ByNeed:
    """That features are computed as rounds need them. needs: returns what a run needs at its config's resolution."""

    ahead: RowsAhead
    needs: Callable[[RunConfig], Needs]


def all_features(
    config: RunConfig,
    trunk: fx.GraphModule,
    engine: Engine,
    splits: Splits,
    store: FeatureStore,
    watcher: Watcher,
    by_need: ByNeed | None = None,
    check: Check = lambda: None,
    uses: Collection[str] = (TEST, TRAIN),
) -> Features:
    """Return the features that the run needs. engine: of `engine_of` for this trunk.

    by_need: those of the training images that are needed first are there when this returns, and the others are computed
    from now on; None: all are there, as they are if the trunk does not take images in any order.
    """
    found = Features()
    for use in uses:
        if (split_of(use), config.compute.features) == (TRAIN, "off"):
            continue
        source = source_of(config, trunk, getattr(splits, split_of(use))[0], engine)
        if by_need is None or split_of(use) != TRAIN:
            found |= Features({use: made(source, store, use, watcher, check)}, {use: key_of(source)})
        else:
            found |= _by_need(source, by_need.needs(config), by_need.ahead, store, use, watcher, check)
    return found


def _by_need(
    source: FeatureSource,
    needs: Needs,
    ahead: RowsAhead,
    store: FeatureStore,
    use: str,
    watcher: Watcher,
    check: Check,
) -> Features:
    """Return the features of training images, of which those needed first are there."""
    key = key_of(source)
    whole = store.find(key)
    if whole is None and not takes_any_order(source):
        whole = made(source, store, use, watcher, check)
    show(needs, len(source.images), use, watcher)
    if whole is not None:
        watcher.advance(len(needs.first))
        return Features({use: whole}, {use: key})
    return begun(ahead, store, form_of(source), lambda: source, needs, use, watcher, check)


def show(needs: Needs, images: int, use: str, watcher: Watcher) -> None:
    """Show the progress of the features needed first; the text does not depend on how many are stored already."""
    if first := len(needs.first):
        watcher.stage(f"features of the first {first:,} of {images:,} {images_of(use)}", first)


def begun(
    ahead: RowsAhead,
    store: FeatureStore,
    form: FeatureForm,
    source: Callable[[], FeatureSource],
    needs: Needs,
    use: str,
    watcher: Watcher,
    check: Check,
) -> Features:
    """Return features that `ahead` computes by need, once those needed first are there. source: as in Computing."""
    rows = ahead.add(store, form, Computing(source), needs.rows)
    for some in torch.split(torch.from_numpy(needs.first), rows.at_once):
        check()
        rows.bring(some)
        watcher.advance(len(some))
    return Features({use: rows.features}, {use: form.key}, {use: rows.bring})
