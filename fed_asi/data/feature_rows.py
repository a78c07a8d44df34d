"""Features that come row by row, from another machine or from the trunk: those that somebody needs, kept in this store.

They are in the store's folder:

KEY.rows.lock   held by the one process that brings rows, for as long as a few take; the others wait
KEY.rows/       features.npy, of which some rows are there, and the checksum of each that is
KEY/            where all are, once somebody says what they are made of
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed_asi.data.feature_file import MARKS, PartFile, read_header
from fed_asi.data.features import FeatureStore
from fed_asi.errors import RunError

PIECE_BYTES = 8 * 1024**2  # of features that come at one time

Rows = NDArray[np.floating]
Fetch = Callable[[Sequence[int]], Rows]


@dataclass(frozen=True, slots=True)
class FeatureForm:
    """What is known of features that are elsewhere. key: their address. shape: (N, ...) of all. dtype: numpy's."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """The bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize


def name_of_rows(key: str) -> str:
    """Return the name in a store of the rows of an entry, as long as not all of them are there."""
    return f"{key}.rows"


def form_of_rows(store: FeatureStore, key: str) -> FeatureForm | None:
    """Return the form of the rows that a store has of an entry; None where it has none, or a damaged file."""
    try:
        with (store.folder / name_of_rows(key) / "features.npy").open("rb") as file:
            shape, dtype, _ = read_header(file)
    except (FileNotFoundError, ValueError):
        return None
    return FeatureForm(key, shape, dtype.name)


def rows_are_there(store: FeatureStore, form: FeatureForm, rows: NDArray[np.integer]) -> bool:
    """Return whether a store has these rows, going by their marks."""
    try:
        marks = np.fromfile(store.folder / name_of_rows(form.key) / MARKS, np.uint64)
    except FileNotFoundError:
        return False
    return len(marks) == form.shape[0] and bool(marks[rows].all())


class FeatureRows:
    """The features of which this machine's store holds the rows that were needed so far.

    fetch: returns the rows asked for, (n, ...), from where all of them are. at_once: rows that are fetched together;
    None: those of 8 MiB. trusting: a row that is marked is taken as it is, as whoever asks has had it looked at.
    Raises RunError where the disk has no room for all of them, ConfigError where the store has none.
    """

    def __init__(
        self,
        store: FeatureStore,
        form: FeatureForm,
        fetch: Fetch,
        *,
        at_once: int | None = None,
        trusting: bool = False,
    ) -> None:
        self._store, self._form, self._fetch, self._trusting = store, form, fetch, trusting
        self._name = name_of_rows(form.key)
        self._at_once = at_once or max(1, PIECE_BYTES // max(1, form.row_bytes))
        self._seen = np.zeros(form.shape[0], dtype=bool)  # by this process
        with store.named():
            store.folder.mkdir(parents=True, exist_ok=True)
            with store.building(self._name):
                if not (store.folder / self._name).is_dir():
                    store.make_room(self._name, form.row_bytes * form.shape[0])
                self._file = PartFile(store.folder / self._name, form.shape, np.dtype(form.dtype), 1)
                self._file.__enter__()
                self._file.hold()
        self._close = weakref.finalize(self, self._file.__exit__, None, None, None)
        self.features = torch.from_numpy(self._file.mapped())

    def seen(self, rows: NDArray[np.integer]) -> bool:
        """Return whether this process knows already that these rows are there."""
        return bool(self._seen[rows].all())

    def bring(self, rows: Tensor) -> None:
        """Return once these rows are there. Raises RunError where they do not come, or the disk refuses them."""
        wanted = np.unique(rows.numpy())
        wanted = wanted[~self._seen[wanted]]
        if self._trusting and len(wanted):
            self._seen[wanted] = self._file.marked()[wanted]
            wanted = wanted[~self._seen[wanted]]
        for start in range(0, len(wanted), self._at_once):
            self._bring(wanted[start : start + self._at_once])

    def _bring(self, rows: NDArray[np.integer]) -> None:
        with self._store.named(), self._store.building(self._name):
            missing = [int(row) for row in rows if not self._file.has(int(row))]
            if missing:
                for row, features in zip(missing, self._checked(missing), strict=True):
                    self._file.write(row, features)
        self._seen[rows] = True

    def finish(self, about: Mapping[str, Any]) -> bool:
        """Make all rows an entry of the store that says what they are made of, where all are there; return whether."""
        key = self._form.key
        with self._store.named(), self._store.building(key), self._store.building(self._name):
            if (self._store.folder / key).is_dir():
                return True
            gone = not (self._store.folder / self._name).is_dir()
            if gone or not self._file.marked().all():
                return False
            if not all(self._file.has(int(row)) for row in np.flatnonzero(~self._seen)):
                return False
            self._file.finish(dict(about), self._store.folder / key)
        return True

    def discard(self) -> None:
        """Let go of the rows and remove them, unless another process has them open."""
        self.close()
        del self.features  # mapped, it would keep them
        self._store.evict(self._name)

    def close(self) -> None:
        """Let go of the file, which may make room for others from now on once nobody has it mapped."""
        self._close()

    def _checked(self, rows: Sequence[int]) -> Rows:
        found = self._fetch(rows)
        if found.shape != (len(rows), *self._form.shape[1:]) or found.dtype != np.dtype(self._form.dtype):
            raise RunError(
                f"{len(rows)} rows of features came as {found.shape} of {found.dtype}, not as {self._form}"
            )
        return found
