"""How a command speaks: its result on stdout, all else on stderr, as --quiet, --json and --wide ask.

A result is said once for people (`show`, `hint`) and once for programs (`answer`), and each is silent where the other
is asked for. What goes wrong (`complain`) is said always.
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
VERSION = 1  # of what --json prints
NARROW, WIDE = 80, 100_000  # characters of a line where there is no terminal, and with --wide


@dataclass(frozen=True, slots=True)
class Manner:
    """What the user asked of a command's output, each by the option of its name."""

    quiet: bool = False
    json: bool = False
    wide: bool = False
    out: TextIO | None = None  # where the document goes, with --json


_PLAIN = Manner()
_manner: ContextVar[Manner] = ContextVar("manner", default=_PLAIN)


def add_output(parser: argparse.ArgumentParser, *, json: bool = True, wide: bool = False) -> None:
    """Add how a command speaks, in the same words for each. wide: it has a table that may leave columns out."""
    add = parser.add_argument_group("output").add_argument
    add("--quiet", action="store_true", help="the result alone: no progress, no hints")
    if json:
        add("--json", action="store_true", help="the result as one JSON document")
    if wide:
        add("--wide", action="store_true", help="every column of its tables, however long a line becomes")


@contextlib.contextmanager
def speaking(given: argparse.Namespace) -> Iterator[None]:
    """Let a command speak as it was asked to while the block lasts.

    With --json what anything else prints, such as code of the user's own, goes to stderr.
    """
    quiet, as_json, wide = (getattr(given, name, False) for name in ("quiet", "json", "wide"))
    before = _manner.set(Manner(quiet, as_json, wide, sys.stdout))
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            yield
    finally:
        _manner.reset(before)


class Terminal(Console):
    """A console that leaves a reader who has gone to `main`; rich's own would exit with 1."""

    def on_broken_pipe(self) -> None:
        """Raise what was met."""
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
    """Return the console of a result for people, which is silent where one for programs is asked for."""
    return Terminal(width=width(), quiet=_manner.get().json, **colours())


def beside() -> Terminal:
    """Return the console of what is said beside a result, on stderr."""
    return Terminal(file=sys.stderr, quiet=_manner.get().quiet, **colours())


def speak_any_language() -> None:
    """Let what the terminal's encoding has no characters for be escaped, where it would be an error."""
    with contextlib.suppress(AttributeError):  # not every stream that stands in for stdout can
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


@contextlib.contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar beside the output while the block lasts, from its first moment; nothing where there is no terminal.

    What it yields moves the bar: steps done, and steps in all. What is told from further inside has a bar below it.
    """
    with Bars(beside()) as bars, listening(bars.hear):
        task = bars.add_task(text, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def show(text: str) -> None:
    """Print a result for people, of one line or several; in a terminal, lines too long for it go on below."""
    if not _manner.get().json:
        lines = visible_lines(text).split("\n")
        print("\n".join((folded(line, width()) for line in lines) if sys.stdout.isatty() else lines))


def hint(text: str) -> None:
    """Print what helps to read a result or says what to do next, where people read it who want to know."""
    if not _manner.get().quiet:
        show(text)


def answer(**found: Any) -> None:
    """Print a result for programs, where it is asked for: one JSON document, once a command."""
    if _manner.get().json:
        said = json.dumps({"version": VERSION, **_data(found)}, indent=1)
        print(said, file=_manner.get().out, flush=True)  # a pipe has it while the command goes on


def say(text: str) -> None:
    """Print a line for the user beside the result."""
    if not _manner.get().quiet:
        complain(text)


def complain(text: str) -> None:
    """Print a line on what is wrong, beside the result."""
    print(visible(text), file=sys.stderr)


def _data(value: Any) -> Any:
    """Return a value as JSON has it: what is no number, or a name's, is null or text."""
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
    """Let SIGTERM and Ctrl-C raise KeyboardInterrupt, also where a shell started us in the background."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt
