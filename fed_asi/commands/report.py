"""`fed-asi report`: show the result of one or more runs again, and write its page."""

from __future__ import annotations

import argparse
from pathlib import Path

from fed_asi.commands.console import OK, add_output, answer, bar, console, show
from fed_asi.results import report
from fed_asi.texts import visible

EXAMPLE = "fed-asi report runs/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, such as runs/demo")
    parser.add_argument("--out", type=Path, metavar="PAGE", help="the page; default: report.html in the run")
    add_output(parser, wide=True)


def main(given: argparse.Namespace) -> int:
    """Print each run's table, write the page, and return the exit code."""
    terminal = console()
    found = [report.show(folder, terminal) for folder in given.runs]
    with bar("drawing the page"):
        page = report.write(given.runs, given.out)
    show(f"report: {visible(page)}")
    answer(runs=[report.as_data(one) for one in found], report=page)
    return OK
