"""`fed-asi export`: write a run's records as files for other tools, one per table."""

from __future__ import annotations

import argparse
from pathlib import Path

from fed_asi.commands.console import OK, add_output, answer, bar, show
from fed_asi.results.export import FORMATS, export
from fed_asi.results.schema import FILE_NAME
from fed_asi.texts import visible

EXAMPLE = "fed-asi export runs/demo --to csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run's folder, such as runs/demo")
    parser.add_argument("--to", required=True, choices=sorted(FORMATS), help="the files' format")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where to; default: a folder in the run, named after the format",
    )
    add_output(parser)


def main(given: argparse.Namespace) -> int:
    """Write the files, print where they are, and return the exit code."""
    run = given.run.parent if given.run.name == FILE_NAME else given.run
    with bar("writing the records"):
        written = export(run, given.to, given.out or run / given.to)
    show("\n".join(visible(path) for path in written))
    answer(files=written)
    return OK
