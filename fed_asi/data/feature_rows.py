"""Features stored row by row as they are needed, fetched from another machine or computed by the trunk.

Files in the folder of the store:

KEY.rows.lock   held by the process that fetches rows, a few at a time; the others wait
KEY.rows/       features.npy, with some of its rows, and a checksum for each row that is there
KEY/            the finished entry, once all rows are there and a process knows what they depend on
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed_asi.data.feature_file import MARKS, PartFile, read_header
from fed_asi.data.features import FeatureStore
from fed_asi.errors import RunError

PIECE_BYTES = 8 * 1024**2  # of features fetched at one time

Rows = NDArray[np.floating]
Fetch = Callable[[Sequence[int]], Rows]


@dataclass(frozen=True, slots=True)
class FeatureForm:
    """The form of features that are not here. key: their address. shape: (N, ...) of all. dtype: its numpy name."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize


def name_of_rows(key: str) -> str:
    """Return the name, in a store, of the rows of an unfinished entry."""
    return f"{key}.rows"


def form_of_rows(store: FeatureStore, key: str) -> FeatureForm | None:
    """Return the form of the rows of an unfinished entry; None if there is none, or if its file is damaged."""
    with store.named(), suppress(FileNotFoundError, ValueError):
        with (store.folder / name_of_rows(key) / "features.npy").open("rb") as file:
            shape, dtype, _ = read_header(file)
        return FeatureForm(key, shape, dtype.name)
    return None


def rows_are_there(store: FeatureStore, form: FeatureForm, rows: NDArray[np.integer]) -> bool:
    """Return whether a store has these rows, by their marks alone."""
    with store.named(), suppress(FileNotFoundError):
        marks = np.fromfile(store.folder / name_of_rows(form.key) / MARKS, np.uint64)
        return len(marks) == form.shape[0] and bool(marks[rows].all())
    return False


class FeatureRows:
    """Features of which this machine's store holds the rows needed so far.

    fetch: returns the rows asked for, (n, ...). at_once: rows fetched together; None: 8 MiB of them. trusting: rows
    that are marked are not checked again, and nobody is waited for; for workers, whose server has checked them.
    Raises RunError if the disk has no room for all rows, ConfigError if the limit of the store leaves none.
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
        self.form = form
        self._store, self._fetch, self._trusting = store, fetch, trusting
        self._name = name_of_rows(form.key)
        self._at_once = at_once or max(1, PIECE_BYTES // max(1, form.row_bytes))
        self._seen = np.zeros(form.shape[0], dtype=bool)  # by this process: rows known to be in the store
        self._file = PartFile(store.folder / self._name, form.shape, np.dtype(form.dtype), 1)
        with store.named():
            while not self._found():
                with store.building(self._name):
                    if not (store.folder / self._name).is_dir():
                        store.make_room(self._name, form.row_bytes * form.shape[0])
                    self._file.create()
        self._close = weakref.finalize(self, self._file.__exit__, None, None, None)
        self.features = torch.from_numpy(self._file.mapped())

    def _found(self) -> bool:
        """Open the rows and return True if they are there; whoever fetches some meanwhile is not waited for."""
        if not self._file.found():
            return False
        self._file.hold()
        if self._file.in_place():
            return True
        self._file.__exit__(None, None, None)  # they have just been finished or evicted
        return False

    def seen(self, rows: NDArray[np.integer]) -> bool:
        """Return whether this process already knows that these rows are stored."""
        return bool(self._seen[rows].all())

    def bring(self, rows: Tensor) -> None:
        """Store those of the rows that are missing. Raises what `fetch` raised, or RunError if the disk fails."""
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
        """Turn the rows into a finished entry if all are there, and return whether there is one.

        about: everything that they depend on.
        """
        key = self.form.key
        with self._store.named(), self._store.building(key), self._store.building(self._name):
            if (self._store.folder / key).is_dir():
                return True
            # Where the store was emptied meanwhile, there may be another run's rows of that name.
            if not self._file.in_place() or not self._file.marked().all():
                return False
            if not all(self._file.has(int(row)) for row in np.flatnonzero(~self._seen)):
                return False
            self._file.finish(dict(about), self._store.folder / key)
        return True

    def discard(self) -> None:
        """Close the rows and remove them from the store, unless another process has them open."""
        self.close()
        del self.features  # its mapping holds the file
        self._store.evict(self._name)

    def close(self) -> None:
        """Close the file; once no process has it mapped, it may be evicted."""
        self._close()

    def _checked(self, rows: Sequence[int]) -> Rows:
        found = self._fetch(rows)
        if found.shape != (len(rows), *self.form.shape[1:]) or found.dtype != np.dtype(self.form.dtype):
            raise RunError(
                f"{len(rows)} rows of features came as {found.shape} of {found.dtype}, not as {self.form}"
            )
        return found
