"""Features fetched from another machine row by row: only the rows that this machine's devices need, kept in its store.

Files in the folder of the store:

KEY.rows.lock   held by the one process that fetches rows; the others wait
KEY.rows/       features.npy, with some of its rows, and a checksum for each row that is there
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed_asi.data.feature_file import PartFile
from fed_asi.data.features import FeatureStore
from fed_asi.errors import RunError

PIECE_BYTES = 8 * 1024**2  # of features fetched at one time

Rows = NDArray[np.floating]
Fetch = Callable[[Sequence[int]], Rows]


@dataclass(frozen=True, slots=True)
class FeatureForm:
    """The form of features on another machine. key: their address. shape: (N, ...) of all. dtype: its numpy name."""

    key: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize


class FeatureRows:
    """Features of which this machine's store holds the rows needed so far.

    fetch: returns the rows asked for, (n, ...), from the machine that has all of them.
    Raises RunError if the disk has no room for all rows, ConfigError if the limit of the store leaves none.
    """

    def __init__(self, store: FeatureStore, form: FeatureForm, fetch: Fetch) -> None:
        self._store, self._form, self._fetch = store, form, fetch
        self._name = f"{form.key}.rows"
        self._seen = np.zeros(form.shape[0], dtype=bool)  # by this process: rows known to be in the store
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

    def bring(self, rows: Tensor) -> None:
        """Fetch those of the rows that are missing. Raises RunError if they do not arrive or cannot be written."""
        wanted = np.unique(rows.numpy())
        wanted = wanted[~self._seen[wanted]]
        if not len(wanted):
            return
        with self._store.named(), self._store.building(self._name):
            missing = [int(row) for row in wanted if not self._file.has(int(row))]
            for some in self._pieces(missing):
                for row, features in zip(some, self._checked(some), strict=True):
                    self._file.write(row, features)
        self._seen[wanted] = True

    def close(self) -> None:
        """Close the file; once no process has it mapped, it may be evicted."""
        self._close()

    def _pieces(self, rows: Sequence[int]) -> Iterator[Sequence[int]]:
        each = max(1, PIECE_BYTES // max(1, self._form.row_bytes))
        return (rows[start : start + each] for start in range(0, len(rows), each))

    def _checked(self, rows: Sequence[int]) -> Rows:
        found = self._fetch(rows)
        if found.shape != (len(rows), *self._form.shape[1:]) or found.dtype != np.dtype(self._form.dtype):
            raise RunError(
                f"{len(rows)} rows of features came as {found.shape} of {found.dtype}, not as {self._form}"
            )
        return found
