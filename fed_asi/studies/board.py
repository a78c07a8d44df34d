"""What a study shows while it runs: a live table in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from fed_asi.results.rich_text import plain
from fed_asi.studies.estimate import duration
from fed_asi.studies.one_run import Said


@dataclass(slots=True)
class _Row:
    """A run in progress."""

    label: str
    began: float
    said: Said
    last: str = ""  # the result of its last round


class Board:
    """The table of runs in progress, with a line on the whole study. A finished run leaves a line behind.

    standing: returns the line on the study.
    """

    def __init__(self, console: Console, standing: Callable[[], str]) -> None:
        self._console, self._standing = console, standing
        self._rows: dict[str, _Row] = {}
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()
            self.note(self._standing())

    def begun(self, name: str, label: str) -> None:
        """Add a run that has begun."""
        self._rows[name] = _Row(label, time.monotonic(), Said("starting"))

    def said(self, name: str, said: Said) -> None:
        """Show the progress of a run."""
        row = self._rows[name]
        row.said = said
        if said.rounds is not None and said.text.startswith("accuracy"):
            row.last = said.text

    def ended(self, name: str, cause: str | None) -> None:
        """Replace a finished run by a permanent line. cause: why the run is a gap; None if it finished."""
        row = self._rows.pop(name)
        how = f"done, {row.last}" if row.last else "done"
        how = f"gap: {cause}" if cause is not None else f"{how}, {duration(time.monotonic() - row.began)}"
        self.note(f"{row.label}: {how}")
        if not self._console.is_terminal:
            self.note(f"  {self._standing()}")

    def note(self, text: str) -> None:
        """Print a permanent line."""
        self._console.print(plain(text), soft_wrap=True)

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for title in ("run", "round", "", "time"):
            table.add_column(
                title, justify="left" if title in {"run", ""} else "right", no_wrap=title != "run"
            )
        now = time.monotonic()
        for row in list(self._rows.values()):  # rich draws it in a thread of its own
            done = "" if row.said.rounds is None else f"{row.said.round}/{row.said.rounds}"
            text = row.last if row.said.rounds is not None else row.said.text
            table.add_row(plain(row.label), plain(done), plain(text), duration(now - row.began))
        return Group(table, plain(self._standing()))
