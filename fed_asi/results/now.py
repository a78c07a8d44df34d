"""What a run is doing right now, kept beside its records for whoever watches it from elsewhere.

Records say what is done; this file says what is being done between two rounds, and while a run is prepared. Nothing
depends on it: if it cannot be written, the run goes on without it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fed_asi.results.progress import Watcher
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord

FILE_NAME, VERSION = "now.json", 1
EVERY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Now:
    """A stage of a run, such as "features of 50,000 images", and how much of it is done; total: None, not known."""

    stage: str
    done: int = 0
    total: int | None = None

    @property
    def text(self) -> str:
        """The stage in words."""
        return self.stage if self.total is None else f"{self.stage}: {self.done:,} of {self.total:,}"


def read_now(folder: Path) -> Now | None:
    """Return what the run in a folder is doing; None if unknown."""
    try:
        said = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(said, dict) or said.pop("version", None) != VERSION:
        return None
    stage, done, total = said.get("stage"), said.get("done"), said.get("total")
    if isinstance(stage, str) and isinstance(done, int) and (total is None or isinstance(total, int)):
        return Now(stage, done, total)
    return None


def write_now(folder: Path, now: Now) -> None:
    """Write to a folder what its run is doing; errors are ignored."""
    content: dict[str, Any] = {"version": VERSION, **asdict(now)}
    beside = folder / f".{FILE_NAME}"
    with contextlib.suppress(OSError):  # nothing depends on it
        beside.write_text(json.dumps(content), encoding="utf-8")
        beside.replace(folder / FILE_NAME)


class Telling:
    """A watcher that passes on what it is told, and writes to the run's folder what the run is doing."""

    def __init__(self, watcher: Watcher, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._watcher, self._folder, self._clock = watcher, folder, clock
        self._now = Now("starting")
        self._written = -EVERY_SECONDS
        self.note = watcher.note

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            (self._folder / FILE_NAME).unlink(missing_ok=True)

    def stage(self, text: str, total: int | None = None) -> None:
        """Pass it on and say it at once."""
        self._watcher.stage(text, total)
        self._say(Now(text, 0, total), at_once=True)

    def advance(self, steps: int = 1) -> None:
        """Pass it on and count it."""
        self._watcher.advance(steps)
        self._step(steps)

    def round_started(self, round: int, rounds: int, asked: int) -> None:
        """Pass it on and say it at once."""
        self._watcher.round_started(round, rounds, asked)
        self._say(Now(f"round {round} of {rounds}, devices that answered", 0, asked), at_once=True)

    def device_done(self, record: DeviceRoundRecord) -> None:
        """Pass it on and count the device."""
        self._watcher.device_done(record)
        self._step(1)

    def round_done(self, record: RoundRecord) -> None:
        """Pass it on."""
        self._watcher.round_done(record)

    def _step(self, steps: int) -> None:
        self._say(Now(self._now.stage, self._now.done + steps, self._now.total))

    def _say(self, now: Now, *, at_once: bool = False) -> None:
        self._now = now
        if not at_once and self._clock() - self._written < EVERY_SECONDS:
            return
        self._written = self._clock()
        write_now(self._folder, now)
