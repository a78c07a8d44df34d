"""The features of a run that was prepared, opened; where they are gone, what they are made of is found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, fx

from fed_asi import data
from fed_asi.data.feature_rows import FeatureRows, form_of_rows, rows_are_there
from fed_asi.data.features import FeatureSource, FeatureStore, key_of
from fed_asi.data.rows_ahead import Computing, form_of, takes_any_order
from fed_asi.data.shards import Shards
from fed_asi.errors import ConfigError, MissingDataError, RunError
from fed_asi.fleets.config import RunConfig
from fed_asi.results.progress import Watcher
from fed_asi.workplace.features import Features, begun, engine_of, made, show, source_of
from fed_asi.workplace.needs import needs_of
from fed_asi.workplace.splits import Splits, split_images


@dataclass(frozen=True, slots=True)
class Sources:
    """What a run's features are made of, found again.

    quick: makes the trunk that made them. keys: of the features, by use. data_dir: where the data set is.
    shards: which images devices hold.
    """

    config: RunConfig
    quick: Callable[[], fx.GraphModule]
    keys: Mapping[str, str]
    store: FeatureStore
    data_dir: Path | None
    shards: Shards

    def again(self, *uses: str) -> dict[str, FeatureSource]:
        """Return what features are made of, by use. Not for a thread beside others.

        Raises RunError or MissingDataError where it is gone, or is not what it was.
        """
        trunk = self.quick()
        splits = _splits_again(self.config, self.store, self.data_dir)
        engine = engine_of(self.config, trunk, splits.public[0])
        images = {"train": splits.train[0], "test": splits.test[0]}
        found = {use: source_of(self.config, trunk, images[use], engine) for use in uses}
        for use, source in found.items():
            if key_of(source) != self.keys[use]:
                raise RunError(
                    f"the features of the {use} images are gone from {self.store.folder}, and cannot be made again: "
                    "images, weights, torch or the trunk's engine are not those that the run began with; start again"
                )
        return found

    def open(self, watcher: Watcher) -> Features:
        """Return the features, memory-mapped; those that are gone from the store are made again, to the bit."""
        found = {use: self.store.find(key) for use, key in self.keys.items()}
        if gone := [use for use, features in found.items() if features is None]:
            for use, source in self.again(*gone).items():
                found[use] = made(source, self.store, use, watcher, lambda: None)
        return Features(self.keys, {use: one for use, one in found.items() if one is not None})

    def open_ahead(self, watcher: Watcher) -> Features:
        """Return the features of which those of the training images are computed by need, where they are not there."""
        if "train" not in self.keys or self.store.find(self.keys["train"]) is not None:
            return self.open(watcher)
        needs, form = needs_of(self.config, self.shards), form_of_rows(self.store, self.keys["train"])
        if form is None or not rows_are_there(self.store, form, needs.rows):
            train = self.again("train")["train"]  # now, before anything is beside it
            if not takes_any_order(train):
                return self.open(watcher)
            form, source = form or form_of(train), lambda: train
            show(needs, len(train.images), watcher)
        else:
            source = self._train_again
        test = self._test(watcher)
        ahead = begun(self.store, form, source, needs, watcher, lambda: None)
        return Features(self.keys, {**test, "train": ahead.features}, ahead.bring, ahead)

    def open_rows(self, watcher: Watcher) -> Features:
        """Return the features of which some may be there as rows alone: those used that are not, are computed then."""
        key = self.keys.get("train", "")
        form = None if not key or self.store.find(key) is not None else form_of_rows(self.store, key)
        if form is None:
            return self.open(watcher)
        computing = Computing(self._train_again)
        rows = FeatureRows(
            self.store, form, computing, at_once=computing.at_once(form.row_bytes), trusting=True
        )
        if self.store.find(key) is not None:  # they all came meanwhile
            rows.discard()
            return self.open(watcher)
        return Features(self.keys, {**self._test(watcher), "train": rows.features}, rows.bring)

    def _test(self, watcher: Watcher) -> Mapping[str, Tensor]:
        return replace(self, keys={"test": self.keys["test"]}).open(watcher).tensors or {}

    def _train_again(self) -> FeatureSource:
        return self.again("train")["train"]


def _splits_again(config: RunConfig, store: FeatureStore, data_dir: Path | None) -> Splits:
    try:
        return split_images(config, data.load(config.data.source, data_dir))
    except (MissingDataError, ConfigError) as error:
        raise MissingDataError(
            f"the run's features are gone from {store.folder}, and the images they are made of too: {error}"
        ) from error
