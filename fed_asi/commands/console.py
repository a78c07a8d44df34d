"""Exit codes, and how a command speaks to the terminal."""

from __future__ import annotations

import sys

from rich.console import Console

OK, LOST, USER_ERROR, STOPPED = 0, 1, 2, 130


def console() -> Console:
    """Return the terminal, or where there is none lines long enough for the whole table."""
    return Console() if sys.stdout.isatty() else Console(width=132)


def say(text: str) -> None:
    """Print a line for the user beside the output proper."""
    print(text, file=sys.stderr)
