"""The text table of a study."""

from __future__ import annotations

from pathlib import Path

from fed_asi.studies.cells import Cell, StudyRuns
from fed_asi.studies.report import write_report
from made_run import make


def test_every_run_has_its_line(tmp_path: Path) -> None:
    done = Cell("a", 0, {}, make(tmp_path / "a"))
    gap = Cell("b", 0, {}, tmp_path / "b", "no memory")
    path = write_report(StudyRuns("s", "Title", (done, gap)), tmp_path)
    assert path.read_text().splitlines() == ["Title", "a, seed 0: 72.50 %", "b, seed 0: no memory"]
