"""A run's result for people: a table in the terminal, and one HTML page with its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from fed_asi.files import check_writable, write_text, writing
from fed_asi.results import table
from fed_asi.results.rich_text import folded
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from fed_asi.texts import visible


def show(folder: str | Path, console: Console) -> Summary:
    """Print a run's result table and what it cannot hold, and return its summary.

    Lines go on below, indented, where a terminal is too narrow for them, and are whole elsewhere.
    """
    summary = _summary(folder)
    console.print(table.grid(summary, console.width))
    for line in map(visible, table.lines(summary)):
        shown = folded(line, console.width) if console.is_terminal else line
        console.print(Text(shown), soft_wrap=True)
    return summary


def as_data(summary: Summary) -> dict[str, Any]:
    """Return a run's result for programs: every group with all of its numbers, every round, and what was said."""
    return {
        "name": summary.name,
        "standing": summary.standing,
        "status": summary.run.status,
        "accuracy_first": None if summary.first is None else summary.first.accuracy,
        "accuracy": None if summary.final is None else summary.final.accuracy,
        "worst_class_accuracy": None if summary.final is None else summary.final.worst_class_accuracy,
        "sim_seconds": summary.sim_seconds,
        "energy_joules": summary.energy_joules,
        "groups": summary.groups,
        "rounds": summary.rounds,
        "causes": summary.causes,
        "missing": summary.missing,
        "notes": summary.notes,
    }


def write(folders: Sequence[str | Path], page: str | Path | None = None) -> Path:
    """Write one HTML page about one or more runs and return its path.

    page: where; None is report.html in the first run's folder, with the figures beside it as PNG files.
    Raises RunError where it cannot be written.
    """
    from fed_asi.results import figures
    from fed_asi.results.page import render

    summaries = [_summary(folder) for folder in folders]
    page = _home(folders[0]) / "report.html" if page is None else Path(page)
    check_writable(page)
    together = [figures.draw(summaries)] if len(summaries) > 1 else []
    each = [figures.draw([summary], bitmaps=not together) for summary in summaries]
    write_text(page, render(summaries, [*together, *each]))
    for caption, drawing in (together or each)[0].items():
        picture = page.parent / f"{caption.lower().replace(' ', '-')}.png"
        with writing(picture):
            picture.write_bytes(drawing.png)
    return page


def _summary(folder: str | Path) -> Summary:
    with RunStore.read(folder) as store:
        return summarise(store)


def _home(folder: str | Path) -> Path:
    folder = Path(folder)
    return folder if folder.is_dir() else folder.parent
