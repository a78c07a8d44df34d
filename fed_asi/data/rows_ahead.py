"""Rows of features that are computed here, beside other work and in the order in which they will be needed.

A row's bits depend neither on the place that it has in a group of images nor on its neighbours, as long as the group is
of one size: `takes_any_order` holds that against the trunk at hand. So rows go through the trunk in groups of GROUP,
whoever needs them, with the bits of the whole entry: its last rows, fewer than a group, go together here too.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed_asi.data.feature_rows import FeatureForm, FeatureRows
from fed_asi.data.features import GROUP, FeatureSource, FeatureStore, key_of
from fed_asi.errors import RunError
from fed_asi.machine import cpus_here

GROUPS_EACH = 4  # that a thread computes at most before their rows are in the store
MOST_BYTES = 256 * 1024**2  # of such rows, where that is more than a group a thread
YIELDING = 16  # how much nicer than its process a thread is that works beside rounds: Ray's workers are by 15

Numbers = NDArray[np.int64]


def takes_any_order(source: FeatureSource) -> bool:
    """Return whether an image's features have the same bits at every place of a group, and beside any others."""
    rows = np.arange(min(GROUP, len(source.images)))
    moved = np.roll(rows, 1)
    return bool((source.computed(rows)[moved] == source.computed(moved)).all())


def form_of(source: FeatureSource) -> FeatureForm:
    """Return the form of a source's features."""
    one = source.computed(np.arange(1))
    return FeatureForm(key_of(source), (len(source.images), *one.shape[1:]), one.dtype.name)


class Computing:
    """Computes rows where they are missing. source: makes what they are made of, called at most once."""

    def __init__(self, source: Callable[[], FeatureSource], workers: int | None = None) -> None:
        self._make = source
        self._source: FeatureSource | None = None
        self.workers = workers or cpus_here()
        self.yields = False  # to the other work of this machine, from now on
        self._stopped = threading.Event()

    @property
    def source(self) -> FeatureSource:
        """What rows are made of."""
        if self._source is None:
            self._source = self._make()
        return self._source

    @property
    def about(self) -> dict[str, Any] | None:
        """What the rows depend on; None as long as none was computed here."""
        return None if self._source is None else self._source.about()

    def at_once(self, row_bytes: int) -> int:
        """Return how many rows are computed before they are in the store. row_bytes: of a row's features."""
        a_group_each = GROUP * self.workers
        fitting = MOST_BYTES // max(1, row_bytes * a_group_each)
        return a_group_each * min(GROUPS_EACH, max(1, fitting))

    def stop(self) -> None:
        """Let what is computed now come to its end with an error, as soon as its groups are done."""
        self._stopped.set()

    def __call__(self, rows: Sequence[int]) -> NDArray[np.floating]:
        """Return the features of these rows, (n, ...). Raises RunError where it is stopped."""
        source = self.source
        whole = len(source.images) // GROUP * GROUP
        wanted = np.asarray(rows, dtype=np.int64)
        last = wanted >= whole
        groups = [np.resize(some, GROUP) for some in _split(wanted[~last])]
        groups += [np.arange(whole, len(source.images))] * bool(last.any())
        with ThreadPoolExecutor(min(self.workers, len(groups)), "features", self._begin) as pool:
            found = list(pool.map(self._compute, groups))
        features: NDArray[np.floating] = np.empty((len(wanted), *found[0].shape[1:]), found[0].dtype)
        if last.any():
            features[last] = found.pop()[wanted[last] - whole]
        places = _split(np.flatnonzero(~last))
        for place, group in zip(places, found, strict=True):
            features[place] = group[: len(place)]
        return features

    def _begin(self) -> None:
        torch.set_num_threads(1)
        if self.yields and sys.platform == "linux":  # elsewhere a thread has no niceness of its own
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, nice + YIELDING))

    def _compute(self, rows: Numbers) -> NDArray[np.floating]:
        if self._stopped.is_set():
            raise RunError("features are computed no more, as the run has ended")
        return self.source.computed(rows)


def _split(rows: Numbers) -> list[Numbers]:
    return [rows[start : start + GROUP] for start in range(0, len(rows), GROUP)]


class RowsAhead:
    """Computes rows in a thread of its own until it is closed: those that are asked for, else those needed next.

    order: all that will be needed, the first first. ended: set once it computes nothing more. at_once: rows that are
    computed together.
    Raises RunError where the disk has no room for all rows, ConfigError where the store has none.
    """

    def __init__(self, store: FeatureStore, form: FeatureForm, computing: Computing, order: Numbers) -> None:
        self._computing, self._order = computing, order
        self.at_once = computing.at_once(form.row_bytes)
        self._rows = FeatureRows(store, form, computing, at_once=self.at_once)
        self._asked: deque[tuple[Numbers, Future[None]]] = deque()
        self._changed = threading.Condition()
        self._closed, self.ended = False, threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="features ahead", daemon=True)
        self._thread.start()

    @property
    def features(self) -> Tensor:
        """All rows, of which those are right that were brought."""
        return self._rows.features

    def bring(self, rows: Tensor) -> None:
        """Return once these rows are there. Raises RunError where they cannot be computed, or it is closed."""
        wanted = np.unique(rows.numpy())
        if self._rows.seen(wanted):
            return
        done: Future[None] = Future()
        with self._changed:
            if self._closed:
                raise self._why()
            self._asked.append((wanted, done))
            self._changed.notify_all()
        done.result()

    @property
    def asked(self) -> int:
        """How many wait for rows that nothing is done about yet."""
        return len(self._asked)

    def yield_to_others(self) -> None:
        """Let the other work of this machine go first from now on."""
        self._computing.yields = True

    def close(self) -> None:
        """Compute nothing more; whoever waits for rows gets an error."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._computing.stop()
        self._thread.join()

    def _work(self) -> None:
        torch.set_num_threads(1)
        try:
            for rows, done in self._next():
                if done is None:
                    self._rows.bring(torch.from_numpy(rows))
                else:
                    _settle(done, partial(self._rows.bring, torch.from_numpy(rows)))
        except BaseException as error:  # whoever asks next raises it
            self._failed = error
        with self._changed:
            self._closed, left = True, list(self._asked)
        for _, done in left:
            done.set_exception(self._why())
        self.ended.set()

    def _next(self) -> Iterator[tuple[Numbers, Future[None] | None]]:
        """Yield rows until it is closed: those asked for, with who waits for them, else some of those needed next."""
        size = self.at_once
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._asked or len(self._order))
                if self._closed:
                    return
                asked = self._asked.popleft() if self._asked else None
            if asked is not None:
                yield asked
                continue
            yield self._order[:size], None
            self._order = self._order[size:]
            if not len(self._order) and (about := self._computing.about) is not None:
                self._rows.finish(about)

    def _why(self) -> BaseException:
        return self._failed or RunError("features are computed no more, as the run has ended")


def _settle(done: Future[None], work: Callable[[], None]) -> None:
    """Do the work and tell whoever waits for it."""
    try:
        work()
    except BaseException as error:
        done.set_exception(error)
    else:
        done.set_result(None)
