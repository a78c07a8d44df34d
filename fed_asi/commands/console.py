"""How a command prints: its result on stdout, everything else on stderr, as --quiet, --json and --wide ask.

A result is printed once for people (`show`, `hint`) or once for programs (`answer`); each is silent when the other was
asked for. Problems (`complain`) are always printed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, NoReturn, TextIO

from rich.console import Console

from fed_asi.results.bars import Bars, colours
from fed_asi.results.rich_text import folded
from fed_asi.texts import visible, visible_lines
from fed_asi.waiting import listening

OK, LOST, USER_ERROR, STOPPED = 0, 1, 2, 130
VERSION = 1  # of the documents that --json prints
NARROW, WIDE = 80, 100_000  # characters per line without a terminal, and with --wide


@dataclass(frozen=True, slots=True)
class Manner:
    """What the user asked of a command's output: one field per option, with its name."""

    quiet: bool = False
    json: bool = False
    wide: bool = False
    out: TextIO | None = None  # where --json prints the document


_PLAIN = Manner()
_manner: ContextVar[Manner] = ContextVar("manner", default=_PLAIN)


def add_output(parser: argparse.ArgumentParser, *, json: bool = True, wide: bool = False) -> None:
    """Add the output options, worded alike for every command. wide: its table may leave columns out."""
    add = parser.add_argument_group("output").add_argument
    add("--quiet", action="store_true", help="the result alone: no progress, no hints")
    if json:
        add("--json", action="store_true", help="the result as one JSON document")
    if wide:
        add("--wide", action="store_true", help="every column of its tables, however long a line becomes")


@contextlib.contextmanager
def speaking(given: argparse.Namespace) -> Iterator[None]:
    """Set how a command prints, as the user asked, inside the block.

    With --json, anything printed by other code, such as the user's own, goes to stderr.
    """
    quiet, as_json, wide = (getattr(given, name, False) for name in ("quiet", "json", "wide"))
    before = _manner.set(Manner(quiet, as_json, wide, sys.stdout))
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            yield
    finally:
        _manner.reset(before)


class Terminal(Console):
    """A console that leaves broken pipes to `main`; rich's own would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError."""
        raise BrokenPipeError


def width() -> int:
    """Return how many characters a line of a table may have."""
    if _manner.get().wide:
        return WIDE
    if sys.stdout.isatty():
        return Terminal().width
    columns = os.environ.get("COLUMNS", "")
    return max(int(columns), NARROW // 2) if columns.isascii() and columns.isdigit() else NARROW


def console() -> Terminal:
    """Return the console for results, which is silent if one for programs was asked for."""
    return Terminal(width=width(), quiet=_manner.get().json, **colours())


def beside() -> Terminal:
    """Return the console for everything that is not the result, on stderr."""
    return Terminal(file=sys.stderr, quiet=_manner.get().quiet, **colours())


def speak_any_language() -> None:
    """Escape characters that the terminal's encoding does not have, instead of raising an error."""
    with contextlib.suppress(AttributeError):  # not every replacement of stdout has this method
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


@contextlib.contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr inside the block, from its first moment; without a terminal show nothing.

    It yields a function that moves the bar: steps done, and steps in all. Progress told by inner code has its own
    bar below.
    """
    with Bars(beside()) as bars, listening(bars.hear):
        task = bars.add_task(text, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def show(text: str) -> None:
    """Print a result for people, of one or more lines; in a terminal, lines that are too long are wrapped."""
    if not _manner.get().json:
        lines = visible_lines(text).split("\n")
        print("\n".join((folded(line, width()) for line in lines) if sys.stdout.isatty() else lines))


def hint(text: str) -> None:
    """Print what helps to read a result, or what to do next; only where a person reads it."""
    if not _manner.get().quiet:
        show(text)


def answer(**found: Any) -> None:
    """Print a result for programs, if asked for: one JSON document per command."""
    if _manner.get().json:
        said = json.dumps({"version": VERSION, **_data(found)}, indent=1)
        print(said, file=_manner.get().out, flush=True)  # pipes get it while the command still runs


def say(text: str) -> None:
    """Print a line for the user on stderr."""
    if not _manner.get().quiet:
        complain(text)


def complain(text: str) -> None:
    """Print a line on stderr that says what is wrong."""
    print(visible(text), file=sys.stderr)


def _data(value: Any) -> Any:
    """Return a value in a form that JSON has: what is not finite becomes null, and other types become text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _data(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _data(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_data(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (str, int)) else str(value)


def stop_on_signals() -> None:
    """Let SIGTERM and Ctrl-C raise KeyboardInterrupt, even if a shell started this process in the background."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
