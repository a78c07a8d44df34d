"""One entry of the feature store: an .npy file filled group by group, which survives a kill at any moment."""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import zlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

import numpy as np
from numpy.typing import NDArray

_DONE: Final = 1 << 32  # a group's mark is this bit and the CRC-32 of its features; 0 is not done
MARKS: Final = "groups.bin"  # the marks of all groups
_MARK: Final = np.dtype(np.uint64)


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return (shape, dtype, offset of the data) of an .npy file. Raises ValueError for a damaged one."""
    np.lib.format.read_magic(file)
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    offset = file.tell()
    if os.fstat(file.fileno()).st_size != offset + math.prod(shape) * dtype.itemsize:
        raise ValueError("the file's size does not match its header")
    return shape, dtype, offset


class PartFile:
    """An unfinished entry in its own folder, for one process at a time; threads of that process may write in parallel.

    shape: (N, ...) of all features. groups: the number of groups, each of `group_size` rows or, the last one, fewer.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype[Any], group_size: int) -> None:
        self.folder = folder
        self.shape, self.dtype, self.group_size = shape, dtype, group_size
        self.groups = -(-shape[0] // group_size)
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize

    def __enter__(self) -> Self:
        self.create()
        self._open()
        return self

    def create(self) -> None:
        """Create the entry, unless it is there in this form."""
        if not self._resumable():
            self._create()

    def found(self) -> bool:
        """Open the entry and return True if it is there in this form; create nothing."""
        try:
            if not self._resumable():
                return False
            self._open()
        except FileNotFoundError:  # it has just been finished or evicted
            return False
        return True

    def _open(self) -> None:
        with ExitStack() as opened:
            self._features = opened.enter_context((self.folder / "features.npy").open("r+b", buffering=0))
            self._marks = opened.enter_context((self.folder / MARKS).open("r+b", buffering=0))
            self._offset = read_header(self._features)[2]
            opened.pop_all()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._features.close()
        self._marks.close()

    def _resumable(self) -> bool:
        try:
            with (self.folder / "features.npy").open("rb") as file:
                fits = read_header(file)[:2] == (self.shape, self.dtype)
            return fits and (self.folder / MARKS).stat().st_size == self.groups * _MARK.itemsize
        except (OSError, ValueError):
            return False

    def _create(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        with (self.folder / "features.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
            )
            file.flush()
            _reserve(file, file.tell() + self.shape[0] * self._row_bytes)
        (self.folder / MARKS).write_bytes(bytes(self.groups * _MARK.itemsize))

    def missing(self) -> list[int]:
        """Return the groups still to be written; a group whose bytes do not match its mark counts as missing."""
        marks = np.frombuffer((self.folder / MARKS).read_bytes(), dtype=_MARK)
        return [group for group in range(self.groups) if marks[group] != self._mark(self._read(group))]

    def has(self, group: int) -> bool:
        """Return whether a group is there, with its bytes as they were written."""
        mark = np.frombuffer(
            os.pread(self._marks.fileno(), _MARK.itemsize, group * _MARK.itemsize), dtype=_MARK
        )
        return bool((mark == self._mark(self._read(group))).any())

    def marked(self) -> NDArray[np.bool_]:
        """Return which groups have a mark, (groups,); their bytes are not checked."""
        marks = os.pread(self._marks.fileno(), self.groups * _MARK.itemsize, 0)
        found: NDArray[np.bool_] = np.frombuffer(marks, dtype=_MARK) != 0
        return found

    def in_place(self) -> bool:
        """Return whether the folder still has the file that is open here, and not another one of that name."""
        try:
            there = (self.folder / "features.npy").stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(self._features.fileno()))

    def mapped(self) -> NDArray[Any]:
        """Return all features of the file as a shared memory map, in which later writes show too."""
        return np.memmap(self._features, dtype=self.dtype, mode="r+", offset=self._offset, shape=self.shape)

    def hold(self) -> None:
        """Protect the file from eviction for as long as it is open or mapped."""
        fcntl.flock(self._features, fcntl.LOCK_SH)

    def rows(self, group: int) -> int:
        """Return the number of rows in a group."""
        return min(self.group_size, self.shape[0] - group * self.group_size)

    def _place(self, group: int) -> tuple[int, int]:
        start = self._offset + group * self.group_size * self._row_bytes
        return start, self.rows(group) * self._row_bytes

    def _read(self, group: int) -> bytes:
        start, size = self._place(group)
        return os.pread(self._features.fileno(), size, start)

    @staticmethod
    def _mark(data: bytes) -> int:
        return _DONE | zlib.crc32(data)

    def write(self, group: int, features: NDArray[np.floating[Any]]) -> None:
        """Write the features of one group, then its mark. Raises ValueError if their size is wrong."""
        data = features.tobytes()
        start, size = self._place(group)
        if len(data) != size:
            raise ValueError(f"group {group} has {len(data)} bytes, expected {size}")
        _write_all(self._features.fileno(), data, start)
        mark = np.array([self._mark(data)], dtype=_MARK).tobytes()
        _write_all(self._marks.fileno(), mark, group * _MARK.itemsize)

    def finish(self, about: dict[str, Any], final: Path) -> None:
        """Rename the whole entry to its final name, in one step; `about` is stored with it as about.json."""
        with (self.folder / "features.npy").open("rb") as file:
            os.fsync(file.fileno())
        (self.folder / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
        self.folder.rename(final)
        (final / MARKS).unlink()


def _reserve(file: BinaryIO, size: int) -> None:
    """Reserve the disk space now, so that a full disk raises an error here and not a signal later."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        os.truncate(file.fileno(), size)


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written
