"""Exit codes, and how a command speaks to the terminal."""

from __future__ import annotations

import contextlib
import signal
import sys
from typing import NoReturn

from rich.console import Console

from fed_asi.texts import visible, visible_lines

OK, LOST, USER_ERROR, STOPPED = 0, 1, 2, 130


class Terminal(Console):
    """A console that leaves a reader who has gone to `main`; rich's own would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Raise what was met."""
        raise BrokenPipeError


def console() -> Console:
    """Return the terminal, or where there is none lines long enough for the whole table."""
    return Terminal() if sys.stdout.isatty() else Terminal(width=132)


def speak_any_language() -> None:
    """Let what the terminal's encoding has no characters for be escaped, where it would be an error."""
    with contextlib.suppress(AttributeError):  # not every stream that stands in for stdout can
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def show(text: str) -> None:
    """Print a command's output, of one line or several."""
    print(visible_lines(text))


def say(text: str) -> None:
    """Print a line for the user beside the output proper."""
    print(visible(text), file=sys.stderr)


def stop_on_signals() -> None:
    """Let SIGTERM and Ctrl-C raise KeyboardInterrupt, also where a shell started us in the background."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
