"""A run's folder: its name, and a lock that lets one process at a time write to it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Self

from fed_asi.errors import RunError

try:
    import fcntl
except ImportError:  # Windows has no flock: there it is left to the user
    fcntl = None  # type: ignore[assignment]


class RunLock:
    """The right to write to a run's folder; it ends with the process, however that dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Return the lock of `folder`. Raises RunError where another process has it."""
        descriptor = os.open(folder / "run.lock", os.O_CREAT | os.O_RDWR, 0o644)
        for patience in (0.1, 0.4, 0.0):  # another process may just be testing the lock
            if _flock(descriptor):
                return cls(descriptor)
            time.sleep(patience)
        os.close(descriptor)
        raise RunError(f"{folder} is being written by another process: wait, or stop it")

    def release(self) -> None:
        """Release the lock; doing so twice is harmless."""
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
