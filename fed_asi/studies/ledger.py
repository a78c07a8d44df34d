"""study.json: a study's runs, its gaps, and their causes. It is replaced as a whole, so that no kill damages it.

STUDY/study.json   the cells, the baseline, the gaps
STUDY/runs/NAME/   an ordinary run folder each
STUDY/profiles/    calibrations that runs share
STUDY/run.lock     held by the one process that runs the study
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fed_asi.errors import RunError, first_line
from fed_asi.files import write_file
from fed_asi.results.lock import is_locked
from fed_asi.results.store import RunStore, is_begun
from fed_asi.studies.cells import Cell, StudyRuns
from fed_asi.studies.grid import PlannedRun
from fed_asi.studies.study_file import Study

VERSION = 1
FILE_NAME, RUNS, PROFILES = "study.json", "runs", "profiles"


@dataclass(frozen=True, slots=True)
class Gap:
    """Why a run is missing. lasting: the run itself failed, and is repeated only if the user asks for it."""

    cause: str
    lasting: bool


@dataclass(slots=True)
class Ledger:
    """A study's folder as study.json records it."""

    folder: Path
    study: Study
    runs: Sequence[PlannedRun]
    gaps: dict[str, Gap] = field(default_factory=dict)  # by the name of the run's folder

    def write(self) -> None:
        """Write study.json. Raises RunError if it cannot be written."""
        write_file(self.folder / FILE_NAME, json.dumps(self._content(), indent=1).encode())

    def as_it_stands(self) -> StudyRuns:
        """Return the study as the statistics see it, under the current study file; writes nothing."""
        return _study(self._content(), self.folder)

    def _content(self) -> dict[str, Any]:
        study = self.study
        return {
            "version": VERSION,
            "name": study.name,
            "title": study.title,
            "kind": study.kind,
            "baseline": study.baseline,
            "target": study.target,
            "cells": [_cell_as_json(run.cell) for run in self.runs],
            "gaps": {name: {"cause": gap.cause, "lasting": gap.lasting} for name, gap in self.gaps.items()},
        }

    def read_gaps(self) -> None:
        """Read the gaps of these runs from study.json. Raises RunError if the file is missing or invalid."""
        known = {run.cell.folder.name for run in self.runs}
        found = _gaps(_read(self.folder / FILE_NAME))
        self.gaps = {name: gap for name, gap in found.items() if name in known}


def _cell_as_json(cell: Cell) -> dict[str, Any]:
    folder = f"{RUNS}/{cell.folder.name}"
    return {"variant": cell.variant, "seed": cell.seed, "settings": dict(cell.settings), "folder": folder}


def study_runs(place: str | Path) -> StudyRuns:
    """Return a study as the statistics see it, finished or not. place: its folder, or the study.json in it.

    Raises RunError if there is no study.
    """
    file = Path(place)
    file = file / FILE_NAME if file.name != FILE_NAME else file
    try:
        return _study(_read(file), file.parent)
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{file} is not a study: {first_line(error)}") from error


def _study(content: Mapping[str, Any], home: Path) -> StudyRuns:
    gaps = _gaps(content)
    cells = tuple(_cell(one, home, gaps) for one in content["cells"])
    return StudyRuns(
        content["name"], content["title"], cells, content["baseline"], content["target"], content["kind"]
    )


def _cell(content: Mapping[str, Any], home: Path, gaps: Mapping[str, Gap]) -> Cell:
    folder = home / content["folder"]
    gap = gaps.get(folder.name)
    why = None if is_finished(folder) else gap.cause if gap is not None else _unfinished(folder)
    return Cell(content["variant"], content["seed"], content["settings"], folder, why)


def is_finished(folder: Path) -> bool:
    """Return whether a run has finished all of its rounds."""
    if not is_begun(folder):
        return False
    try:
        with RunStore.read(folder) as store:
            return store.run().status == "finished"
    except RunError:
        return False


def _unfinished(folder: Path) -> str:
    """Return why an unfinished run has no result, if it has not failed."""
    if not is_begun(folder):
        return "not begun"
    try:
        with RunStore.read(folder) as store:
            done, rounds = max(0, len(store.rounds()) - 1), store.config().rounds
    except RunError as error:
        return str(error)
    return f"{'at work' if is_locked(folder) else 'stopped'} after {done} of {rounds} rounds"


def _gaps(content: Mapping[str, Any]) -> dict[str, Gap]:
    return {
        name: Gap(str(one["cause"]), bool(one["lasting"])) for name, one in content.get("gaps", {}).items()
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"no study in {file.parent}: it has no {FILE_NAME}") from None
    except (OSError, ValueError) as error:
        raise RunError(f"{file} cannot be read: {first_line(error)}") from error
    if not isinstance(content, dict) or content.get("version") != VERSION:
        found = content.get("version") if isinstance(content, dict) else None
        raise RunError(
            f"{file} is of version {found}; this fed-asi reads {VERSION}: take another --out, or remove it"
        )
    return content


def strangers(folder: Path, runs: Sequence[PlannedRun]) -> Iterator[str]:
    """Yield the names of run folders in the study's folder that do not belong to it."""
    known = {run.cell.folder.name for run in runs}
    there = folder / RUNS
    if there.is_dir():
        yield from sorted(one.name for one in there.iterdir() if one.name not in known and is_begun(one))
