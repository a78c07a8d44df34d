"""Progress bars for everything slow: what is happening, how much is done, and how long it may still take."""

from __future__ import annotations

import math
import os
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from fed_asi.results.rich_text import plain
from fed_asi.texts import clipped

NUMBERS = 46  # characters of a bar and the numbers behind it


def colours() -> dict[str, Any]:
    """Return the option of rich's consoles that makes NO_COLOR turn off bold and dim, too; rich alone does not."""
    return {"color_system": None} if os.environ.get("NO_COLOR") else {}


class _Left(ProgressColumn):
    """The time a task may still take, from the time its steps took so far."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Return the time left; empty until it is known."""
        seconds = task.time_remaining
        return plain("" if not seconds else f"{timedelta(seconds=math.ceil(seconds))} left")


class _Done(MofNCompleteColumn):
    """Steps done out of all steps; empty if the total is unknown."""

    def render(self, task: Task) -> Text:
        """Return both numbers."""
        return plain("") if task.total is None else super().render(task)


class Bars(Progress):
    """Progress bars in a terminal, removed when they are done; nothing elsewhere. Hears `waiting.tell`, too."""

    def __init__(self, console: Console) -> None:
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=12),
            _Done(),
            TimeElapsedColumn(),
            _Left(),
            console=console,
            transient=True,
            disable=console.quiet or not console.is_terminal,
        )
        self._told: dict[str, TaskID] = {}

    def add_task(self, description: str, *how: Any, **options: Any) -> TaskID:
        """Show a bar with a text that leaves room for the numbers."""
        return super().add_task(clipped(description, max(20, self.console.width - NUMBERS)), *how, **options)

    def hear(self, text: str, done: int, total: int | None) -> None:
        """Show progress that is reported from deeper inside; its bar is removed when it is over."""
        if text not in self._told:
            self._told[text] = self.add_task(text, total=total)
        self.update(self._told[text], completed=done, total=total)
        if total is not None and done >= total:
            self.remove_task(self._told.pop(text))
