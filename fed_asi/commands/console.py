"""Exit codes, and how a command speaks to the terminal."""

from __future__ import annotations

import sys

from rich.console import Console

OK, LOST, USER_ERROR, STOPPED = 0, 1, 2, 130


class Terminal(Console):
    """A console that leaves a reader who has gone to `main`; rich's own would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Raise what was met."""
        raise BrokenPipeError


def console() -> Console:
    """Return the terminal, or where there is none lines long enough for the whole table."""
    return Terminal() if sys.stdout.isatty() else Terminal(width=132)


def say(text: str) -> None:
    """Print a line for the user beside the output proper."""
    print(text, file=sys.stderr)
