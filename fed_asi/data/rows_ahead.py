"""Rows of features computed on this machine, beside other work and in the order in which they will be needed.

The bits of a row depend neither on its place in a group of images nor on the other images there, as long as all groups
have the same size; `takes_any_order` checks that for the trunk at hand. So rows are computed in groups of GROUP,
gathered from anywhere, with the same bits as in the whole entry. The last rows of an entry, fewer than a group, are
computed together, as they are there.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed_asi.data.feature_rows import FeatureForm, FeatureRows
from fed_asi.data.features import GROUP, FeatureSource, FeatureStore, key_of
from fed_asi.errors import RunError
from fed_asi.machine import cpus_here, threads

GROUPS_EACH = 4  # most groups that a thread computes before their rows are stored
MOST_BYTES = 256 * 1024**2  # most bytes of such rows, unless one group a thread is more
YIELDING = (
    16  # added to the niceness of threads while nobody waits for them; Ray adds 15 to that of its workers
)
ENDED = "no more features are computed, as the run has ended"

Numbers = NDArray[np.int64]


def takes_any_order(source: FeatureSource) -> bool:
    """Return whether an image's features have the same bits at every place of a group, and beside any other images."""
    rows = np.arange(min(GROUP, len(source.images)))
    moved = np.roll(rows, 1)
    with threads(1):  # as rows are computed
        return bool((source.computed(rows)[moved] == source.computed(moved)).all())


def form_of(source: FeatureSource) -> FeatureForm:
    """Return the form of a source's features, computing those of one image."""
    one = source.computed(np.arange(1))
    return FeatureForm(key_of(source), (len(source.images), *one.shape[1:]), one.dtype.name)


class Computing:
    """Computes missing rows. source: returns what they are computed from; called at most once, and only if needed."""

    def __init__(self, source: Callable[[], FeatureSource], workers: int | None = None) -> None:
        self._make = source
        self._source: FeatureSource | None = None
        self.workers = workers or cpus_here()
        self.yields = False  # whether the threads let the other work of this machine go first
        self._stopped = threading.Event()

    @property
    def source(self) -> FeatureSource:
        """What rows are computed from."""
        if self._source is None:
            self._source = self._make()
        return self._source

    @property
    def about(self) -> dict[str, Any] | None:
        """Everything that the rows depend on; None as long as none has been computed here."""
        return None if self._source is None else self._source.about()

    def at_once(self, row_bytes: int) -> int:
        """Return how many rows are computed before they are stored. row_bytes: bytes of one row."""
        a_group_each = GROUP * self.workers
        fitting = MOST_BYTES // max(1, row_bytes * a_group_each)
        return a_group_each * min(GROUPS_EACH, max(1, fitting))

    def stop(self) -> None:
        """Make the computation under way, and all later ones, raise RunError as soon as its current groups are done."""
        self._stopped.set()

    def __call__(self, rows: Sequence[int]) -> NDArray[np.floating]:
        """Return the features of these rows, (n, ...). Raises RunError where it has been stopped."""
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
            with suppress(OSError):  # where a sandbox forbids it
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(19, nice + YIELDING))

    def _compute(self, rows: Numbers) -> NDArray[np.floating]:
        if self._stopped.is_set():
            raise RunError(ENDED)
        return self.source.computed(rows)


def _split(rows: Numbers) -> list[Numbers]:
    return [rows[start : start + GROUP] for start in range(0, len(rows), GROUP)]


class RowsAhead:
    """Computes rows in a thread of its own until it is closed: those that are asked for, or else those needed next.

    ended: set once the thread has ended.
    """

    def __init__(self) -> None:
        self._every: list[RowsByNeed] = []
        self._left: deque[RowsByNeed] = deque()  # those with rows that will be needed, in turn
        self._asked: deque[tuple[RowsByNeed, Numbers, Future[None]]] = deque()
        self._changed = threading.Condition()
        self._closed, self._yields, self.ended = False, False, threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="features ahead", daemon=True)

    def add(self, store: FeatureStore, form: FeatureForm, computing: Computing, order: Numbers) -> RowsByNeed:
        """Return the rows of one entry, which are computed from now on.

        order: all rows that will be needed, the first first. Where there are several entries, they take turns.
        Raises RunError where it is closed or the disk has no room for all rows, ConfigError where the store has none.
        """
        rows = FeatureRows(store, form, computing, at_once=computing.at_once(form.row_bytes))
        added = RowsByNeed(self, rows, computing, order)
        with self._changed:
            if self._closed:
                raise self._why()
            self._every.append(added)
            self._left.append(added)
            if not self._thread.ident:
                self._thread.start()
            self._changed.notify_all()
        return added

    def bring(self, rows: RowsByNeed, wanted: Numbers) -> None:
        """Return once these rows are stored. Raises what computing them raised, or RunError where it is closed."""
        done: Future[None] = Future()
        with self._changed:
            if self._closed:
                raise self._why()
            self._asked.append((rows, wanted, done))
            self._changed.notify_all()
        done.result()

    @property
    def asked(self) -> int:
        """How many callers wait for rows that are not being computed yet."""
        return len(self._asked)

    def yield_to_others(self) -> None:
        """Let the other work of this machine go first from now on, except where somebody waits for rows."""
        self._yields = True

    def close(self) -> None:
        """Compute nothing more; whoever waits for rows gets an error."""
        with self._changed:
            self._closed = True
            for one in self._every:
                one.computing.stop()
            self._changed.notify_all()
        if self._thread.ident:
            self._thread.join()

    def _work(self) -> None:
        torch.set_num_threads(1)
        try:
            while self._do_next():
                pass
        except BaseException as error:  # raised again by whoever asks next
            self._failed = error
        with self._changed:
            self._closed, left = True, list(self._asked)
        for _, _, done in left:
            done.set_exception(self._why())
        self.ended.set()

    def _do_next(self) -> bool:
        """Compute rows that are asked for, or else some of those needed next; return False where it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._asked or self._left)
            if self._closed:
                return False
            asked = self._asked.popleft() if self._asked else None
            following = None if asked is not None else self._left.popleft()
        if asked is not None:
            asked[0].computing.yields = False
            _settle(*asked)
        elif following is not None and following.store_next(yielding=self._yields):
            with self._changed:
                self._left.append(following)
        return True

    def _why(self) -> BaseException:
        return self._failed or RunError(ENDED)


class RowsByNeed:
    """The rows of one entry that a RowsAhead computes. at_once: how many are computed together."""

    def __init__(self, ahead: RowsAhead, rows: FeatureRows, computing: Computing, order: Numbers) -> None:
        self.ahead, self.rows, self.computing = ahead, rows, computing
        self.at_once = computing.at_once(rows.form.row_bytes)
        self._order = order

    @property
    def features(self) -> Tensor:
        """All rows, (N, ...); only those that were brought are valid."""
        return self.rows.features

    def bring(self, rows: Tensor) -> None:
        """Return once these rows are stored. Raises what computing them raised, or RunError after the run's end."""
        wanted = np.unique(rows.numpy())
        if not self.rows.seen(wanted):
            self.ahead.bring(self, wanted)

    def store_next(self, *, yielding: bool) -> bool:
        """Store some of the rows needed next, and return whether others are left. Called by the RowsAhead alone."""
        self.computing.yields = yielding
        self.rows.bring(torch.from_numpy(self._order[: self.at_once]))
        self._order = self._order[self.at_once :]
        if len(self._order):
            return True
        if (about := self.computing.about) is not None:
            with suppress(RunError):  # of a disk that is full, say: the rows stay as they are
                self.rows.finish(about)
        return False


def _settle(rows: RowsByNeed, wanted: Numbers, done: Future[None]) -> None:
    """Store rows, and tell whoever waits for them."""
    try:
        rows.rows.bring(torch.from_numpy(wanted))
    except BaseException as error:
        done.set_exception(error)
    else:
        done.set_result(None)
