"""The run's own folder, where its workers keep devices' warm factors and leave word of who is at work."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Protocol

from fed_asi.devices.job import Job
from fed_asi.devices.reply import State
from fed_asi.devices.warm_factors import OnDisk

LATE_WORD = "late"


class Home(State, Protocol):
    """Where workers leave what the server, and whoever goes on with the run, must find."""

    def begin(self, job: Job) -> None:
        """Leave word that a device is at work."""

    def late(self, job: Job) -> None:
        """Leave word that a device is ended for working too long."""

    def clear(self, job: Job) -> None:
        """Take a device's word away."""


class HomeFolder(OnDisk):
    """The folder itself, for who sees it: devices/ of the run."""

    __slots__ = ()

    def begin(self, job: Job) -> None:
        """Make a device's file, and the folder where it is not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        begun_file(self.folder, job).touch()

    def late(self, job: Job) -> None:
        """Write a device's file."""
        begun_file(self.folder, job).write_text(LATE_WORD)

    def clear(self, job: Job) -> None:
        """Remove a device's file, where it can be."""
        clear_word(self.folder, job)


def begun_file(folder: Path, job: Job) -> Path:
    """Return the file that is there while a device works; "late" in it means it was ended for that."""
    return folder / f"begun-{job.round:06d}-{job.partition_id:06d}"


def word_left(folder: Path, job: Job) -> str | None:
    """Return what a device left in its file: "" at work, "late"; None where there is no file, or none to be read."""
    try:
        with begun_file(folder, job).open("rb") as file:
            return file.read(len(LATE_WORD) + 1).decode(errors="replace")
    except OSError:
        return None


def clear_word(folder: Path, job: Job) -> None:
    """Remove a device's file, where it can be; one that stays is a device that began, and is not asked again."""
    with contextlib.suppress(OSError):
        begun_file(folder, job).unlink(missing_ok=True)
