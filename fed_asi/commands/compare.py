"""`fed-asi compare`: show how two runs differ; exits 1 if they do."""

from __future__ import annotations

import argparse
from pathlib import Path

from fed_asi.commands.console import LOST, OK, add_output, answer, bar, show
from fed_asi.results.compare import compare
from fed_asi.texts import visible

EXAMPLE = "fed-asi compare runs/demo runs/demo-2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("runs", nargs=2, type=Path, metavar="RUN", help="a run's folder, such as runs/demo")
    add_output(parser)


def main(given: argparse.Namespace) -> int:
    """Print how the runs differ and return the exit code."""
    with bar("reading both runs"):
        comparison = compare(*given.runs)
    show("\n".join(visible(line) for line in comparison.lines))
    answer(
        equal=comparison.equal,
        equal_weights=comparison.equal_weights,
        first_difference=comparison.first_difference,
        lines=comparison.lines,
    )
    return OK if comparison.equal else LOST
