"""Before the first round: data, shards, weights, the cut, features and the profile, once per run."""

from __future__ import annotations

import copy
import io
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, fx, nn

from fed_asi import calibration, data, fleet, models, seeds
from fed_asi.checkpoint import write_file, write_tensors
from fed_asi.config import RunConfig, ShardingConfig
from fed_asi.data import shards as sharding
from fed_asi.data.features import FeatureSource, FeatureStore, key_of
from fed_asi.data.images import Images, select, to_batch
from fed_asi.data.images import fingerprint as images_fingerprint
from fed_asi.device_plans import DevicePlans, Limits, choose_layers, micro_batches
from fed_asi.errors import ConfigError
from fed_asi.models import split
from fed_asi.pretraining import pretrain_
from fed_asi.profiles import Profile
from fed_asi.progress import Unwatched, Watcher
from fed_asi.tune import tune_last_
from fed_asi.workplace import IMAGES, MANIFEST, VERSION, Workplace, fingerprint, is_prepared, open_workplace

Found = TypeVar("Found")
Check = Callable[[], None]  # raises where what calls it is to stop
STOP_SECONDS = 5.0  # a group of images is done in less; only another process's store is waited for longer


@dataclass(frozen=True, slots=True)
class _Splits:
    """Images and labels by use; no image has two."""

    public: tuple[Images, Tensor]
    train: tuple[Images, Tensor]
    test: tuple[Images, Tensor]


def prepare(
    config: RunConfig,
    folder: Path,
    *,
    data_dir: Path | None = None,
    weights_dir: Path | None = None,
    watcher: Watcher | None = None,
    found: Callable[[], None] | None = None,
) -> Workplace:
    """Return the run's workplace, made under `folder` unless it is there from before a kill.

    folder: runs/NAME/workplace. data_dir, weights_dir: where the data set and weights are; None looks at the
    environment, then at the publishers. found: called once data and weights are there, before the long part.
    Raises MissingDataError, WeightsError, ConfigError before `found`, and RunError.
    """
    torch.set_num_threads(config.compute.threads)
    if not is_prepared(folder, config):
        watcher = watcher or Unwatched()
        watcher.stage(f"data: {config.data.source}")
        source = data.load(config.data.source, data_dir)
        splits = _split(config, source)
        model = _model(config, source.num_classes, weights_dir)
        if found is not None:
            found()
        _make(config, folder, source.num_classes, splits, model, watcher)
    return open_workplace(folder, config)


def _make(
    config: RunConfig, folder: Path, num_classes: int, splits: _Splits, model: nn.Module, watcher: Watcher
) -> None:
    notes = []
    if config.model.weights == "public":
        notes.append(_pretrain_(config, model, splits.public, watcher))
    made = _profile_and_features(config, folder, splits, model.eval(), watcher)
    if config.compute.features == "off":
        write_file(folder / IMAGES, _npy(splits.train[0][:]))
    shards = sharding.make(splits.train[1].numpy(), config.num_devices, scheme(config.sharding), config.seed)
    index = {"labels": splits.train[1].numpy(), "test_labels": splits.test[1].numpy()}
    index |= {"indices": shards.indices, "offsets": shards.offsets}
    write_file(folder / "index.npz", _npz(**index))
    write_tensors(folder / "base.pt", model.state_dict())
    write_file(folder / "profile.json", made.profile.to_json().encode())
    write_file(folder / "config.json", config.to_json().encode())
    manifest = {
        "version": VERSION,
        "fingerprint": fingerprint(config),
        "num_classes": num_classes,
        "trained": list(made.trained),
        "store": store_path(),
        "features": made.features.get("train"),
        "test_features": made.features["test"],
        "notes": notes,
    }
    write_file(folder / MANIFEST, json.dumps(manifest, indent=1).encode())  # last: it says the rest is whole


@dataclass(frozen=True, slots=True)
class _Made:
    """trained: the layers that some device may train. features: keys in the store, by use."""

    trained: Sequence[str]
    profile: Profile
    features: dict[str, str]


def _profile_and_features(
    config: RunConfig, folder: Path, splits: _Splits, model: nn.Module, watcher: Watcher
) -> _Made:
    """Return the profile and the features' keys, made beside each other where the cut does not hang on the profile."""
    trained = trained_names(model, config)
    example = torch.zeros(1, 3, config.model.resolution, config.model.resolution)
    trunk, tail = _cut(model, trained, example)
    store = FeatureStore(folder / store_path(), config.compute.features_limit)
    images = min(config.method.calibration_images, len(splits.public[1]))
    watcher.stage(f"calibration on {images} public images")
    # With more threads the number a thread gets is torch's to say, and it decides the last bits.
    if _is_cut(config) and config.compute.threads == 1:
        with _aside(partial(_all_features, config, trunk, splits, store, watcher)) as kept:
            profile = _profile(config, tail, trunk, splits.public, trained)
            return _Made(trained, profile, kept.result())
    profile = _profile(config, tail, trunk, splits.public, trained)
    used = _layers_of_plans(config, profile)
    if used < {layer.name for layer in profile.layers}:
        trained = [layer.name for layer in profile.layers if layer.name in used]
        trunk, tail = _cut(model, trained, example)
        profile = _profile(config, tail, trunk, splits.public, trained)
    return _Made(trained, profile, _all_features(config, trunk, splits, store, watcher))


def _is_cut(config: RunConfig) -> bool:
    """Return whether no profile can take layers from the trained ones, and so move the cut."""
    return config.method.calibration != "server" or not choose_layers(config.method)


@contextmanager
def _aside(call: Callable[[Check], Found]) -> Iterator[Future[Found]]:
    """Do a call in a thread of its own, which is stopped where the block fails.

    call: gets what it must call often; that raises once it is to stop.
    """
    future: Future[Found] = Future()
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise CancelledError

    def work() -> None:
        torch.set_num_threads(1)
        try:
            future.set_result(call(check))
        except BaseException as error:  # whoever waits for the result raises it
            future.set_exception(error)

    thread = threading.Thread(target=work, name="aside", daemon=True)
    thread.start()
    try:
        yield future
    except BaseException:
        stop.set()
        thread.join(STOP_SECONDS)
        raise


def _cut(model: nn.Module, trained: Sequence[str], example: Tensor) -> tuple[fx.GraphModule, fx.GraphModule]:
    trunk, tail = split.cut(model, trained, example)
    return split.folded(trunk), tail


def _layers_of_plans(config: RunConfig, profile: Profile) -> set[str]:
    """Return the layers that some device of the fleet will train in some round, all where that is not known.

    Known before the first round is what plans choose for the fleet's own budgets from the server's profile.
    """
    plans = DevicePlans(profile, config.method, config.train)
    every = {
        Limits(budget, device.batch_size, device.micro_batch)
        for device in fleet.build(config)
        for budget in (device.budget_bytes, *(changed for _, changed in device.schedule))
    }
    used = set() if _is_cut(config) else plans.layers_of(every)
    return used or {layer.name for layer in profile.layers}


def scheme(settings: ShardingConfig) -> sharding.Scheme:
    """Return the sharding scheme that the settings name."""
    if settings.scheme == "iid":
        return sharding.Iid(settings.minimum)
    if settings.scheme == "classes":
        return sharding.ClassesPerDevice(settings.classes_per_device, settings.minimum)
    return sharding.Dirichlet(settings.alpha, settings.minimum)


def trained_names(model: nn.Module, config: RunConfig) -> Sequence[str]:
    """Return the names of all layers or parameters that any device may train; the model stays as it is."""
    wanted = 0 if config.method.name == "head" else config.method.layers
    if wanted in {"all", "any"}:
        return [name for name, p in model.named_parameters()]
    if isinstance(wanted, int):
        return tune_last_(copy.deepcopy(model), wanted)
    return [*wanted, models.head_name(model)]


def _split(config: RunConfig, source: data.Dataset) -> _Splits:
    settings = config.data
    rows = source.split(settings.public, settings.validation, config.seed)
    x, y = source.x_train, torch.from_numpy(source.y_train)
    train = rows.train[: settings.limit]
    if len(train) < config.num_devices:
        raise ConfigError(f"{len(train)} training images for {config.num_devices} devices; each needs one")
    if settings.validation:
        tested, judged_x, judged_y = rows.validation, x, y
    else:
        judged_x, judged_y = source.x_test, torch.from_numpy(source.y_test)
        tested = np.arange(len(judged_y))
    tested = tested[: settings.test_limit]
    return _Splits(
        (select(x, rows.public), y[rows.public]),
        (select(x, train), y[train]),
        (select(judged_x, tested), judged_y[tested]),
    )


def _model(config: RunConfig, num_classes: int, weights_dir: Path | None) -> nn.Module:
    settings = config.model
    weights = None if settings.weights in {"public", "none"} else settings.weights
    return models.build(
        settings.name,
        num_classes,
        weights,
        settings.resolution,
        weights_dir=weights_dir,
        seed=seeds.derive(config.seed, "weights"),
    )


def _batch(config: RunConfig, images: Images) -> Tensor:
    mean, std = models.normalisation(config.model.name)
    return to_batch(images[:], config.model.resolution, mean, std)


def _pretrain_(config: RunConfig, model: nn.Module, public: tuple[Images, Tensor], watcher: Watcher) -> str:
    epochs = config.pretrain.epochs
    watcher.stage(f"no pretrained weights: training on the server's {len(public[1])} public images", epochs)
    loss = pretrain_(
        model,
        _batch(config, public[0]),
        public[1],
        config.pretrain,
        seed=config.seed,
        report=lambda _epoch, _loss: watcher.advance(),
    )
    text = (
        f"weights: trained by the server on {len(public[1])} public images, which are on no device "
        f"({epochs} epochs, loss {loss:.3f})"
    )
    watcher.note(text)
    return text


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


def _all_features(
    config: RunConfig,
    trunk: fx.GraphModule,
    splits: _Splits,
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


def _profile(
    config: RunConfig,
    tail: fx.GraphModule,
    trunk: fx.GraphModule,
    public: tuple[Images, Tensor],
    trained: Sequence[str],
) -> Profile:
    count = config.method.calibration_images
    with torch.inference_mode():
        features = trunk(_batch(config, public[0][:count]))
    needs = [(d.batch_size, d.micro_batch) for d in fleet.build(config)]
    # A device of a federated calibration may have fewer images than a micro-batch.
    smaller = config.method.over_budget == "smaller-micro-batch" or config.method.calibration != "server"
    return calibration.profile(
        tail,
        features.clone(),
        public[1][:count],
        trained=trained,
        micro_batches=[b for b in micro_batches(needs, smaller=smaller) if b <= len(features)],
        methods=config.method.allowed or ("vanilla",),
        selection="published" if config.method.grid == "published" else "candidates",
        seed=config.seed,
    )


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
