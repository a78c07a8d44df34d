"""The run's own folder, where its workers keep devices' warm factors and mark who is at work."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from fed_asi.devices.job import Job
from fed_asi.devices.reply import State
from fed_asi.devices.warm_factors import OnDisk

LATE_WORD = "late"


class Home(State, Protocol):
    """Where workers leave what the server, or a resumed run, must find."""

    def begin(self, job: Job) -> None:
        """Mark a device as being at work."""

    def late(self, job: Job) -> None:
        """Mark a device as ended for working too long."""

    def clear(self, job: Job) -> None:
        """Remove a device's mark."""


class HomeFolder(OnDisk):
    """The folder itself, devices/ of the run, for processes that can see it."""

    __slots__ = ()

    def begin(self, job: Job) -> None:
        """Create a device's file, and the folder if need be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        begun_file(self.folder, job).touch()

    def late(self, job: Job) -> None:
        """Write a device's file."""
        begun_file(self.folder, job).write_text(LATE_WORD)

    def clear(self, job: Job) -> None:
        """Remove a device's file, if possible."""
        clear_word(self.folder, job)


def begun_file(folder: Path, job: Job) -> Path:
    """Return the file that exists while a device works; "late" in it means that the device was ended for that."""
    return folder / f"begun-{job.round:06d}-{job.partition_id:06d}"


def word_left(folder: Path, job: Job) -> str | None:
    """Return what is in a device's file: "" if it was at work, or "late"; None if there is no readable file."""
    try:
        with begun_file(folder, job).open("rb") as file:
            return file.read(len(LATE_WORD) + 1).decode(errors="replace")
    except OSError:
        return None


def clear_word(folder: Path, job: Job) -> None:
    """Remove a device's file, if possible. One that stays means that the device had begun: it is not asked again."""
    with contextlib.suppress(OSError):
        begun_file(folder, job).unlink(missing_ok=True)
