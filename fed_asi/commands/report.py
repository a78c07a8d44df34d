"""`fed-asi report`: show the result of one or more runs again, and write its page."""

from __future__ import annotations

import argparse
from pathlib import Path

from fed_asi.commands.console import OK, console, show
from fed_asi.results import report
from fed_asi.texts import visible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder, such as runs/demo")
    parser.add_argument("--out", type=Path, metavar="PAGE", help="the page; default: report.html in the run")


def main(given: argparse.Namespace) -> int:
    """Print each run's table, write the page, and return the exit code."""
    terminal = console()
    for folder in given.runs:
        report.show(folder, terminal)
    show(f"report: {visible(report.write(given.runs, given.out))}")
    return OK
