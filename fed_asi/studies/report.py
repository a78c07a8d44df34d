"""A study's report: a page, Markdown, LaTeX, CSV, and every figure as vector and bitmap."""

from __future__ import annotations

from pathlib import Path

from fed_asi.files import check_writable, write_text, writing
from fed_asi.studies.cells import StudyRuns
from fed_asi.studies.csv_files import cells_csv, results_csv, rounds_csv
from fed_asi.studies.documents import latex, markdown
from fed_asi.studies.figures import draw
from fed_asi.studies.findings import Findings, find
from fed_asi.studies.page import render


def write_report(
    study: StudyRuns | Findings, folder: Path, command: str | None = None, documents: Path | None = None
) -> list[Path]:
    """Write a study's report into a folder and return the files, the page first.

    command: the command line that made it. documents: a second folder, such as a repository's docs, that gets
    everything but the page; its files come last, Markdown first.

    Raises RunError if the files cannot be written, or if the runs cannot be compared.
    """
    found = study if isinstance(study, Findings) else find(study)
    page = "index.html"
    for one in filter(None, (folder, documents)):
        check_writable(one / page)
    pictures = draw(found)
    files: dict[str, str | bytes] = {
        page: render(found, pictures, command),
        "results.md": markdown(found, pictures.all(), command),
        "results.csv": results_csv(found),
        "cells.csv": cells_csv(found),
        "rounds.csv": rounds_csv(found),
        "results.tex": latex(found, command),
    } | {
        f"{one.name}.{kind}": content
        for one in pictures.all()
        for kind, content in (("svg", one.svg), ("png", one.png))
    }
    written = [_written(folder / name, content) for name, content in files.items()]
    if documents is not None:
        written += [_written(documents / name, content) for name, content in files.items() if name != page]
    return written


def _written(path: Path, content: str | bytes) -> Path:
    if isinstance(content, str):
        write_text(path, content)
    else:
        with writing(path):
            path.write_bytes(content)
    return path
