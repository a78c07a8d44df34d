"""A run's folder: its name, and that one process at a time writes to it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Self

from fed_asi.errors import RunError

try:
    import fcntl
except ImportError:  # Windows has no flock: there the user minds it
    fcntl = None  # type: ignore[assignment]


class RunLock:
    """The right to write to a run's folder; however the process dies, it ends then."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Return the lock of `folder`. Raises RunError where another process has it."""
        descriptor = os.open(folder / "run.lock", os.O_CREAT | os.O_RDWR, 0o644)
        for patience in (0.1, 0.4, 0.0):  # someone may just be looking whether it is taken
            if _flock(descriptor):
                return cls(descriptor)
            time.sleep(patience)
        os.close(descriptor)
        raise RunError(f"{folder} is being written by another process: wait, or stop it")

    def release(self) -> None:
        """Give the right back; doing so twice is harmless."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_locked(folder: Path) -> bool:
    """Return whether some process is writing to the run in `folder` right now."""
    try:
        descriptor = os.open(folder / "run.lock", os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _flock(descriptor)
    finally:
        os.close(descriptor)


def _flock(descriptor: int) -> bool:
    """Take the lock if it is free; return whether it was."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def new_folder(out: str | Path, name: str) -> Path:
    """Make and return the run's folder: out/NAME, or out/NAME-2, -3 ... when taken.

    Raises RunError where `out` cannot be written.
    """
    number = 1
    while True:
        folder = Path(out) / (name if number == 1 else f"{name}-{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if not folder.parent.is_dir():
                raise RunError(f"cannot make {folder}: {out} is not a folder") from None
            number += 1
        except OSError as error:
            raise RunError(f"cannot make {folder}: {error.strerror}") from None
        else:
            return folder
