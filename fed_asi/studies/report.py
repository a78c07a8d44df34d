"""A study's result as a text table."""

from __future__ import annotations

from pathlib import Path

from fed_asi.files import write_text
from fed_asi.results.store import RunStore
from fed_asi.studies.cells import StudyRuns
from fed_asi.texts import visible


def write_report(runs: StudyRuns, folder: Path) -> Path:
    """Write the last accuracy of every run, and every gap, as a text; return its path."""
    lines = [runs.title]
    for cell in runs.cells:
        lines.append(
            f"{visible(cell.variant)}, seed {cell.seed}: {_result(cell.folder) if cell.gap is None else cell.gap}"
        )
    write_text(folder / "report.txt", "\n".join(lines) + "\n")
    return folder / "report.txt"


def _result(folder: Path) -> str:
    with RunStore.read(folder) as store:
        accuracies = [one.accuracy for one in store.rounds() if one.accuracy is not None]
    return f"{100 * accuracies[-1]:.2f} %" if accuracies else "no accuracy"
