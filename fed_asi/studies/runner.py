"""Runs what is left of a study, in parallel. Each run ends finished or as a named gap, and none ends the study.

The exception is a full disk, which would stop every other run too.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from fed_asi.errors import RunError
from fed_asi.studies.board import Board
from fed_asi.studies.estimate import Clock, duration
from fed_asi.studies.grid import PlannedRun
from fed_asi.studies.ledger import PROFILES, Gap, Ledger
from fed_asi.studies.one_run import Ended, Said, Task
from fed_asi.studies.standing import Standing
from fed_asi.studies.workers import Workers
from fed_asi.workplace.address import WORKPLACE_DIR
from fed_asi.workplace.kept_profiles import PROFILES_DIR

TICK_SECONDS = 0.5
SHARED_DIRS = (
    "FED_ASI_DATA_DIR",
    "FED_ASI_WEIGHTS_DIR",
    "FED_ASI_FEATURES_DIR",
)  # as seen by a node of a cluster


@dataclass(slots=True)
class _AtWork:
    """A run in progress: its task, when it began, and the share of it that is done."""

    standing: Standing
    began: float
    share: float


@dataclass(slots=True)
class Runner:
    """Runs what is left of a study. jobs: runs at once. data_dir, weights_dir: as for `fed-asi run`."""

    ledger: Ledger
    left: Sequence[Standing]
    clock: Clock
    jobs: int
    data_dir: Path | None = None
    weights_dir: Path | None = None
    done: int = 0
    _waiting: deque[Standing] = field(default_factory=deque)
    _at_work: dict[str, _AtWork] = field(default_factory=dict)

    def run(self, workers: Workers, console: Console) -> None:
        """Do every remaining run, and record each gap as it occurs.

        Raises RunError if a disk is full. KeyboardInterrupt propagates. In any case the workers are stopped.
        """
        self._waiting = deque(self.left)
        try:
            with Board(console, self.standing) as board:
                while self._waiting or self._at_work:
                    while self._waiting and workers.free():
                        self._begin(self._waiting.popleft(), workers, board)
                    for name, event in workers.events(TICK_SECONDS):
                        self._take(name, event, board)
        finally:
            workers.stop()

    def standing(self) -> str:
        """Return the progress of the study as one line."""
        total = len(self.ledger.runs)
        gaps = len(self.ledger.gaps)
        words = [f"{self.done} of {total} runs done"]
        words += [f"{gaps} {'gap' if gaps == 1 else 'gaps'}"] if gaps else []
        left = [(one.run.cell.variant, 1.0 - one.share) for one in list(self._waiting)]
        left += [(one.standing.run.cell.variant, 1.0 - one.share) for one in list(self._at_work.values())]
        seconds = self.clock.left_seconds(left, min(self.jobs, len(left)))
        if left:
            words.append(
                "time left unknown until one has ended"
                if seconds is None
                else f"about {duration(seconds)} left"
            )
        return ", ".join(words)

    def _begin(self, standing: Standing, workers: Workers, board: Board) -> None:
        run = standing.run
        name = run.cell.folder.name
        self._at_work[name] = _AtWork(standing, time.monotonic(), standing.share)
        board.begun(name, run.label)
        workers.begin(name, self._task(run))

    def _task(self, run: PlannedRun) -> Task:
        environment: dict[str, str | None] = {
            name: str(Path(os.environ[name]).resolve()) for name in SHARED_DIRS if os.environ.get(name)
        }
        environment |= {PROFILES_DIR: str((self.ledger.folder / PROFILES).resolve()), WORKPLACE_DIR: None}
        folders = [None if one is None else str(one.resolve()) for one in (self.data_dir, self.weights_dir)]
        return Task(run.config.to_json(), str(run.cell.folder.resolve()), environment, *folders)

    def _take(self, name: str, event: Said | Ended, board: Board) -> None:
        work = self._at_work[name]
        if isinstance(event, Said):
            if event.round is not None and event.rounds:
                work.share = event.round / event.rounds
            board.said(name, event)
            return
        del self._at_work[name]
        if event.cause is None:
            self.done += 1
            if work.standing.state == "new":  # only then was the whole run timed here
                self.clock.add(work.standing.run.cell.variant, time.monotonic() - work.began)
        else:
            self.ledger.gaps[name] = Gap(event.cause, lasting=not (event.full or event.died))
        board.ended(name, event.cause)
        if event.full:
            raise RunError(f"the disk is full: {event.cause}")
        if event.cause is not None:
            self.ledger.write()
