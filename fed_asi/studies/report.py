"""A study's result, written: a page, Markdown, LaTeX, CSV, and every figure as vector and bitmap."""

from __future__ import annotations

from pathlib import Path

from fed_asi.files import check_writable, write_text, writing
from fed_asi.studies.cells import StudyRuns
from fed_asi.studies.csv_files import cells_csv, results_csv, rounds_csv
from fed_asi.studies.documents import latex, markdown
from fed_asi.studies.figures import draw
from fed_asi.studies.findings import Findings, find
from fed_asi.studies.page import render


def write_report(study: StudyRuns | Findings, folder: Path, command: str | None = None) -> list[Path]:
    """Write what a study found into a folder and return the files, the page first. command: the line that made it.

    Raises RunError where they cannot be written, or the runs cannot be compared.
    """
    found = study if isinstance(study, Findings) else find(study)
    page = folder / "index.html"
    check_writable(page)
    pictures = draw(found)
    texts = {
        page: render(found, pictures, command),
        folder / "results.md": markdown(found, pictures.all(), command),
        folder / "results.csv": results_csv(found),
        folder / "cells.csv": cells_csv(found),
        folder / "rounds.csv": rounds_csv(found),
        folder / "results.tex": latex(found, command),
    }
    for path, text in texts.items():
        write_text(path, text)
    drawn = {
        folder / f"{one.name}.{kind}": content
        for one in pictures.all()
        for kind, content in (("svg", one.svg), ("png", one.png))
    }
    for path, content in drawn.items():
        with writing(path):
            path.write_bytes(content)
    return [*texts, *drawn]
