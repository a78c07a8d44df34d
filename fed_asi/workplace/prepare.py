"""What is done once per run, before the first round: data, shards, weights, the cut, features and the profile."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from fed_asi import data, models, own_code, seeds
from fed_asi.data.features import FeatureStore
from fed_asi.data.images import Images
from fed_asi.data.rows_ahead import RowsAhead
from fed_asi.data.shards import Shards
from fed_asi.files import write_file, write_tensors
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.gpus import CPU, device_named, device_of, exact, sent
from fed_asi.machine import threads
from fed_asi.planning.profile import Profile
from fed_asi.planning.resolutions import resolution_note, resolutions_of
from fed_asi.results.progress import Unwatched, Watcher
from fed_asi.training.pretraining import pretrain_, pretrain_head_
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.aside import aside
from fed_asi.workplace.benches import benches_of
from fed_asi.workplace.choosing import with_storage
from fed_asi.workplace.features import ByNeed, Engine, Features, all_features, engine_of, store_path
from fed_asi.workplace.features_again import Sources
from fed_asi.workplace.needs import needs_of
from fed_asi.workplace.opening import (
    IMAGES,
    MANIFEST,
    PROFILE,
    RESOLUTIONS,
    VERSION,
    is_prepared,
    open_workplace,
    profile_at,
)
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.profiled import AtResolution, profiled
from fed_asi.workplace.profiling import (
    batch_of,
    calibrating,
    cut_network,
    is_cut,
    profile_of,
    trained_bytes,
    trained_names,
)
from fed_asi.workplace.splits import Splits, split_images
from fed_asi.workplace.start import check_start
from fed_asi.workplace.storing import moving_notes, storage_notes, stored
from fed_asi.workplace.uses import TEST, TRAIN, train_at


def prepare(
    config: RunConfig,
    folder: Path,
    *,
    data_dir: Path | None = None,
    weights_dir: Path | None = None,
    watcher: Watcher | None = None,
    found: Callable[[int], None] | None = None,
    early: bool = False,
    after: int = 0,
) -> Workplace:
    """Return the run's workplace, made under `folder` unless a killed run has left it there, complete.

    folder: runs/NAME/workplace. data_dir, weights_dir: where the data set and weights are; None tries the
    environment, then the publishers. found: called once data and weights are there, before the long part, with the
    bytes of what the devices may train. early: return once the features that the run needs first are there; the others
    are computed from then on, as rounds will need them, until the block of the place's `going_on` ends. after: the last
    round that is recorded, which needs none.
    Raises MissingDataError, WeightsError and ConfigError (all that `check_start` finds) before `found`, and RunError.
    """
    device, watcher = device_named(config.compute.device), watcher or Unwatched()
    with threads(config.compute.threads), exact(device), ExitStack() as undo:
        ahead, features = None, None
        if early and may_begin_early(config):
            ahead = RowsAhead()
            undo.callback(ahead.close)
        if not is_prepared(folder, config):
            watcher.stage(f"data: {own_code.shown_name(config.data.source)}")
            source = data.load(config.data.source, data_dir)
            splits = split_images(config, source)
            model = build_model(config, source.num_classes, weights_dir)
            shards = check_start(config, splits, model, source.num_classes)
            if found is not None:
                found(trained_bytes(model, config))
            given = _Given(splits, shards, source.num_classes, data_dir, watcher, ahead, after)
            features = _make(config, folder, given, model)
        opened = Sources.open if ahead is None else partial(Sources.open_ahead, ahead=ahead, after=after)
        place = open_workplace(
            folder, config, data_dir=data_dir, watcher=watcher, features=features, opened=opened
        )
        undo.pop_all()
        return replace(place, ahead=ahead)


def may_begin_early(config: RunConfig) -> bool:
    """Return whether rounds may begin before all features are there: only if all workers see this machine's store.

    A GPU has all features in its memory from the beginning.
    """
    compute = config.compute
    return compute.features != "off" and compute.ray_address is None and device_named(compute.device) == CPU


@dataclass(frozen=True, slots=True)
class _Given:
    """What a workplace is made from.

    ahead: computes features by need; None: all are computed first. after: as in `needs_of`.
    """

    splits: Splits
    shards: Shards
    num_classes: int
    data_dir: Path | None
    watcher: Watcher
    ahead: RowsAhead | None
    after: int

    def by_need(self, taken: Sequence[int] | None = None) -> ByNeed | None:
        """Return how features are computed by need. taken: as in `needs_of`."""
        if self.ahead is None:
            return None
        return ByNeed(self.ahead, partial(needs_of, shards=self.shards, taken=taken, after=self.after))


def _make(config: RunConfig, folder: Path, given: _Given, model: nn.Module) -> Features:
    """Write the workplace and return its features."""
    splits, shards = given.splits, given.shards
    notes = []
    if config.model.weights == "public" or config.pretrain.head_epochs:
        notes.append(
            _pretrain_(config, model.to(device_named(config.compute.device)), splits.public, given.watcher)
        )
        model.cpu()
    own = with_storage(config, model.eval(), splits.public)
    notes += storage_notes(own, len(splits.public[1]), chosen=own is not config) + moving_notes(own)
    made = _profile_and_features(own, folder, given, model)
    notes += [text for text in (made.resolution, made.note) if text]
    if config.compute.features == "off":
        write_file(folder / IMAGES, _npy(splits.train[0][:]))
    index = {"labels": splits.train[1].numpy(), "test_labels": splits.test[1].numpy()}
    index |= {"indices": shards.indices, "offsets": shards.offsets}
    index |= {"resolutions": np.array(made.taken, np.int16)} if made.others else {}
    write_file(folder / "index.npz", _npz(**index))
    write_tensors(folder / "base.pt", model.state_dict())
    write_file(folder / PROFILE, made.profile.to_json().encode())
    for pixels, other in made.others.items():
        write_file(folder / profile_at(pixels), other.profile.to_json().encode())
    write_file(folder / "config.json", config.to_json().encode())
    manifest = {
        "version": VERSION,
        "fingerprint": run_fingerprint(config),
        "num_classes": given.num_classes,
        "trained": list(made.trained),
        "store": store_path(),
        "data_dir": None if given.data_dir is None else str(given.data_dir.resolve()),
        "features": made.features.keys.get(TRAIN),
        "test_features": made.features.keys[TEST],
        "ranges": made.ranges,
        "storage": own.storage.form,
        "notes": notes,
    }
    if made.others:
        manifest["resolution"] = config.model.resolution  # of the network that is cut
        manifest[RESOLUTIONS] = {
            str(pixels): {
                "features": made.features.keys.get(train_at(pixels)),
                "ranges": other.ranges,
            }
            for pixels, other in made.others.items()
        }
    write_file(
        folder / MANIFEST, json.dumps(manifest, indent=1).encode()
    )  # last: it marks the rest as complete
    return made.features


@dataclass(frozen=True, slots=True)
class _Made:
    """trained: layers that some device may train. ranges: of an int8 trunk.

    note, resolution: for the run's readers, on what computed the features and on who trains at which. others, taken: of
    `Profiled`.
    """

    trained: Sequence[str]
    profile: Profile
    features: Features
    ranges: Mapping[str, tuple[float, float]] | None
    note: str
    others: Mapping[int, AtResolution] = field(default_factory=dict)
    taken: Sequence[int] = ()
    resolution: str = ""


def _profile_and_features(config: RunConfig, folder: Path, given: _Given, model: nn.Module) -> _Made:
    """Return the profile and the features, made concurrently where the cut does not need the profile."""
    splits, watcher = given.splits, given.watcher
    images = min(config.method.calibration_images, len(splits.public[1]))
    watcher.stage(calibrating(images))
    store = FeatureStore(folder / store_path(), config.compute.features_limit)
    # With more threads, torch decides how many each call gets, which decides the last bits.
    one = resolutions_of(fleet.build(config), config.model.resolution) == (config.model.resolution,)
    if is_cut(config) and config.compute.threads == 1 and one:
        trained = trained_names(model, config)
        cut = cut_network(config, model, trained)
        parts = stored(config, cut, splits.public[0])
        benches = benches_of(config, *cut)
        engine = _engine(config, parts.trunk, splits, watcher)
        make = partial(all_features, config, parts.trunk, engine, splits, store, watcher, given.by_need())
        with aside(make) as kept:
            profile = profile_of(config, parts.tail, parts.trunk, splits.public, trained, benches)
            return _Made(trained, profile, kept.result(), parts.ranges, engine.note)
    made = profiled(config, model, splits.public)
    own, by_need = made.own, given.by_need(made.taken if made.others else None)
    engine = _engine(config, own.trunk, splits, watcher)
    features = all_features(config, own.trunk, engine, splits, store, watcher, by_need)
    for pixels, other in made.others.items():
        at = engine_of(other.config, other.trunk, splits.public[0])
        use = train_at(pixels)
        features |= all_features(other.config, other.trunk, at, splits, store, watcher, by_need, uses=(use,))
    note = resolution_note(fleet.build(config), config.model.resolution, made.taken)
    return _Made(made.trained, own.profile, features, own.ranges, engine.note, made.others, made.taken, note)


def _engine(config: RunConfig, trunk: fx.GraphModule, splits: Splits, watcher: Watcher) -> Engine:
    engine = engine_of(config, trunk, splits.public[0])
    if engine.note:
        watcher.note(engine.note)
    return engine


def build_model(config: RunConfig, num_classes: int, weights_dir: Path | None) -> nn.Module:
    """Return the run's network with its initial weights, before any pretraining."""
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


def _pretrain_(config: RunConfig, model: nn.Module, public: tuple[Images, Tensor], watcher: Watcher) -> str:
    whole = config.model.weights == "public"
    epochs = config.pretrain.epochs if whole else config.pretrain.head_epochs
    what = "" if whole else " the head"
    watcher.stage(f"pretraining{what} on {len(public[1])} public images", epochs)
    device = device_of(model)
    loss = (pretrain_ if whole else pretrain_head_)(
        model,
        sent(batch_of(config, public[0]), device),
        sent(public[1], device),
        config.pretrain,
        seed=config.seed,
        report=lambda _epoch, _loss: watcher.advance(),
    )
    text = (
        f"weights{' of the head' if not whole else ''}: trained by the server on {len(public[1])} public images, which "
        f"are on no device ({epochs} epochs, loss {loss:.3f})"
    )
    watcher.note(text)
    return text


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()
