"""One run of a study, from the state of its folder to its end, in whatever process executes it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fed_asi import own_code
from fed_asi.errors import FedAsiError, first_line
from fed_asi.files import write_text
from fed_asi.fleets.config import RunConfig
from fed_asi.results.lock import is_locked
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import RoundRecord
from fed_asi.results.store import is_begun
from fed_asi.rounds.run import run_loop

PATIENCE_SECONDS = 10.0
MISTAKE = "mistake.txt"  # in a run's folder: the traceback of an unexpected error


@dataclass(frozen=True, slots=True)
class Task:
    """The task of one worker: plain values, so that it can be sent to any process on any machine.

    config: as JSON. environment: variables to set for the run; None unsets one.
    """

    config: str
    folder: str
    environment: dict[str, str | None]
    data_dir: str | None = None
    weights_dir: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended. cause: why the run is a gap; None if it finished.

    full: whether a disk was full. died: whether its process died, so that its folder can be resumed.
    """

    cause: str | None = None
    full: bool = False
    died: bool = False


@dataclass(frozen=True, slots=True)
class Said:
    """A progress report of a run. round: rounds finished, of `rounds`; None before training."""

    text: str
    round: int | None = None
    rounds: int | None = None


Tell = Callable[[Said], None]


class Telling(Unwatched):
    """A watcher that reports stages and rounds, one line each."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._rounds: int | None = None

    def stage(self, text: str, total: int | None = None) -> None:  # noqa: ARG002 - as the protocol has it
        """Report a stage that begins."""
        self._tell(Said(text))

    def round_started(self, round: int, rounds: int, asked: int) -> None:  # noqa: ARG002 - the same
        """Report a round that begins."""
        self._rounds = rounds
        self._tell(Said(f"round {round}", round - 1, rounds))

    def round_done(self, record: RoundRecord) -> None:
        """Report the accuracy after a round."""
        if record.accuracy is not None and self._rounds is not None:
            self._tell(Said(f"accuracy {100 * record.accuracy:.1f} %", record.round, self._rounds))


def do_run(task: Task, tell: Tell) -> Ended:
    """Return how a run ended that was begun or resumed here.

    Any error only makes this run a gap. KeyboardInterrupt propagates, and is recorded as the run's status.
    """
    config, folder = RunConfig.from_json(task.config), Path(task.folder)
    try:
        with _environment(task.environment):
            _wait_for_lock(folder)
            resume = is_begun(folder)
            if not resume:
                shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed before its first record
            run_loop(
                config,
                folder,
                resume=resume,
                data_dir=_path(task.data_dir),
                weights_dir=_path(task.weights_dir),
                watcher=Telling(tell),
            )
    except FedAsiError as error:
        return Ended(" ".join(str(error).split("\n")), is_full(error))
    except Exception as error:  # an unexpected error in one run must not end the study
        return Ended(_mistake(error, folder), is_full(error))
    return Ended()


def _wait_for_lock(folder: Path) -> None:
    """Wait for a worker of a study just killed to release the run; any other holder of the lock is named later."""
    until = time.monotonic() + PATIENCE_SECONDS
    while is_locked(folder) and time.monotonic() < until:
        time.sleep(0.1)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


@contextlib.contextmanager
def _environment(changes: dict[str, str | None]) -> Iterator[None]:
    """Set environment variables inside the block; None unsets one."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(changes: dict[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def is_full(error: BaseException) -> bool:
    """Return whether an error was caused by a full disk."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        if isinstance(found, sqlite3.OperationalError) and "disk is full" in str(found):
            return True
        found = found.__cause__ or found.__context__
    return False


def _mistake(error: Exception, folder: Path) -> str:
    """Return a line on an error in this program or in user code, and write its traceback to the run's folder."""
    kept = folder / MISTAKE
    with contextlib.suppress(FedAsiError):
        write_text(kept, "".join(traceback.format_exception(error)))
    whose = own_code.owner_of(error)
    return f"an error in {whose}: {type(error).__name__}: {first_line(error)}; details in {kept}"
