"""The features of a prepared run, opened; if they are gone, what they were computed from is found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import fx

from fed_asi import data
from fed_asi.data.feature_rows import FeatureRows, form_of_rows, rows_are_there
from fed_asi.data.features import FeatureSource, FeatureStore, key_of
from fed_asi.data.rows_ahead import Computing, RowsAhead, form_of, takes_any_order
from fed_asi.data.shards import Shards
from fed_asi.errors import ConfigError, MissingDataError, RunError
from fed_asi.fleets.config import RunConfig
from fed_asi.results.progress import Watcher
from fed_asi.workplace.features import Features, begun, engine_of, made, show, source_of
from fed_asi.workplace.needs import Taken, needs_of
from fed_asi.workplace.splits import Splits, split_images
from fed_asi.workplace.uses import TEST, images_of, split_of


@dataclass(frozen=True, slots=True)
class Sources:
    """What a run's features at one resolution are computed from, found again if needed.

    quick: makes the trunk that computes them. use: of the training images. keys: of the features in the store, by use.
    data_dir: where the data set is. shards, taken: which images devices hold, and at which resolution they train; None:
    all at this one.
    """

    config: RunConfig
    quick: Callable[[], fx.GraphModule]
    use: str
    keys: Mapping[str, str]
    store: FeatureStore
    data_dir: Path | None
    shards: Shards
    taken: Taken | None = None

    def again(self, *uses: str) -> dict[str, FeatureSource]:
        """Return what features are computed from, by use. Do not call it beside other threads.

        Raises RunError or MissingDataError where that is gone or has changed.
        """
        trunk = self.quick()
        splits = _splits_again(self.config, self.store, self.data_dir)
        engine = engine_of(self.config, trunk, splits.public[0])
        images = {use: getattr(splits, split_of(use))[0] for use in uses}
        found = {use: source_of(self.config, trunk, images[use], engine) for use in uses}
        for use, source in found.items():
            if key_of(source) != self.keys[use]:
                raise RunError(
                    f"the features of the {images_of(use)} are gone from {self.store.folder}, and cannot be made "
                    "again: images, weights, torch or the trunk's engine are not those that the run began with; "
                    "start again"
                )
        return found

    def open(self, watcher: Watcher) -> Features:
        """Return the features, memory-mapped; those that are gone from the store are made again, to the bit."""
        found = {use: self.store.find(key) for use, key in self.keys.items()}
        if gone := [use for use, features in found.items() if features is None]:
            for use, source in self.again(*gone).items():
                found[use] = made(source, self.store, use, watcher, lambda: None)
        return Features({use: one for use, one in found.items() if one is not None}, self.keys)

    def open_ahead(self, watcher: Watcher, ahead: RowsAhead, after: int = 0) -> Features:
        """Return the features; those of the training images are computed by need, unless all are in the store.

        after: as in `needs_of`.
        """
        if self._is_whole:
            return self.open(watcher)
        key = self.keys[self.use]
        needs = needs_of(self.config, self.shards, self.taken, after)
        form = form_of_rows(self.store, key)
        source = self._train_again
        if form is None or not rows_are_there(self.store, form, needs.rows):
            train = self._train_again()  # now, before other threads compute
            if not takes_any_order(train):
                return self.open(watcher)
            form, source = form or form_of(train), lambda: train
        tests = self._others(watcher)
        show(needs, form.shape[0], self.use, watcher)
        return tests | begun(ahead, self.store, form, source, needs, self.use, watcher, lambda: None)

    def open_rows(self, watcher: Watcher) -> Features:
        """Return the features as another process computes them by need; missing rows are computed when used here."""
        form = None if self._is_whole else form_of_rows(self.store, self.keys[self.use])
        if form is None:
            return self.open(watcher)
        computing = Computing(self._train_again)
        rows = FeatureRows(
            self.store, form, computing, at_once=computing.at_once(form.row_bytes), trusting=True
        )
        if self.store.find(form.key) is not None:  # completed in the meantime
            rows.discard()
            return self.open(watcher)
        here = Features({self.use: rows.features}, {self.use: form.key}, {self.use: rows.bring})
        return self._others(watcher) | here

    @property
    def _is_whole(self) -> bool:
        return self.use not in self.keys or self.store.find(self.keys[self.use]) is not None

    def _others(self, watcher: Watcher) -> Features:
        """Return the features of the test images, where they are of this resolution."""
        return replace(self, keys={use: key for use, key in self.keys.items() if use == TEST}).open(watcher)

    def _train_again(self) -> FeatureSource:
        return self.again(self.use)[self.use]


def _splits_again(config: RunConfig, store: FeatureStore, data_dir: Path | None) -> Splits:
    try:
        return split_images(config, data.load(config.data.source, data_dir))
    except (MissingDataError, ConfigError) as error:
        raise MissingDataError(
            f"the run's features are gone from {store.folder}, and the images they are made of too: {error}"
        ) from error
