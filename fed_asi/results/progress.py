"""What a run reports to its watchers: bars in a terminal, a line for each round elsewhere."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import TaskID

from fed_asi.results.bars import Bars
from fed_asi.results.rich_text import plain
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.waiting import listening


class Watcher(Protocol):
    """The interface that a run calls as it goes on; a watcher never changes the run."""

    def stage(self, text: str, total: int | None = None) -> None:
        """Report the start of a stage, such as "features of 50,000 images", and its number of steps."""

    def advance(self, steps: int = 1) -> None:
        """Report that this many steps of the stage are done."""

    def note(self, text: str) -> None:
        """Report a line that should stay visible."""

    def round_started(self, round: int, rounds: int, asked: int) -> None:
        """Report which round begins (from 1) and how many devices it asks."""

    def device_done(self, record: DeviceRoundRecord) -> None:
        """Report how one device's round ended, in any order."""

    def round_done(self, record: RoundRecord) -> None:
        """Report how good the model is after the round."""


class Unwatched:
    """A watcher that does nothing."""

    def stage(self, text: str, total: int | None = None) -> None:
        """Ignore it."""

    def advance(self, steps: int = 1) -> None:
        """Ignore it."""

    def note(self, text: str) -> None:
        """Ignore it."""

    def round_started(self, round: int, rounds: int, asked: int) -> None:
        """Ignore it."""

    def device_done(self, record: DeviceRoundRecord) -> None:
        """Ignore it."""

    def round_done(self, record: RoundRecord) -> None:
        """Ignore it."""


class Terminal:
    """A watcher that shows bars in a terminal; elsewhere it only prints lasting lines."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(console)
        self._open = ExitStack()
        self._rounds: TaskID | None = None
        self._current: TaskID | None = None
        self._left_out: dict[str, int] = {}
        self._round = self._stage = ""
        self._noted: set[str] = set()

    def __enter__(self) -> Self:
        self._open.enter_context(self._bars)
        self._open.enter_context(listening(self._hear))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def stage(self, text: str, total: int | None = None) -> None:
        """Show a bar for the stage; without a terminal, its name."""
        self._replace(text, total)
        self._stage = text
        self._name(text)

    def _hear(self, text: str, done: int, total: int | None) -> None:
        """Move the stage's own bar, or show one for progress reported from deeper inside."""
        if text == self._stage and self._current is not None:
            self._bars.update(self._current, completed=done, total=total)
            return
        self._bars.hear(text, done, total)
        if text not in self._noted:
            self._name(text)

    def _name(self, text: str) -> None:
        self._noted.add(text)
        if not self._console.is_terminal:
            self.note(text)

    def advance(self, steps: int = 1) -> None:
        """Move the stage's bar."""
        if self._current is not None:
            self._bars.advance(self._current, steps)

    def note(self, text: str) -> None:
        """Print one line that stays."""
        self._console.print(plain(text), soft_wrap=True)

    def round_started(self, round: int, rounds: int, asked: int) -> None:
        """Show the rounds' bar and a bar for the devices of this one."""
        if self._rounds is None:
            self._rounds = self._bars.add_task("rounds", total=rounds, completed=round - 1)
        self._round, self._left_out = f"round {round}/{rounds}", {}
        self._replace(f"{self._round} devices", asked)

    def device_done(self, record: DeviceRoundRecord) -> None:
        """Move the devices' bar and count who was left out."""
        if record.outcome != "trained":
            self._left_out[record.outcome] = self._left_out.get(record.outcome, 0) + 1
        self.advance()

    def round_done(self, record: RoundRecord) -> None:
        """Print the round's line."""
        if self._rounds is not None:
            self._bars.update(self._rounds, completed=record.round)
        self._drop()
        left_out = "".join(f", {count} {outcome}" for outcome, count in sorted(self._left_out.items()))
        trained = (
            f"{record.trained} of {record.asked} devices trained" if record.asked else "before any training"
        )
        self.note(
            f"{self._round or 'start'}: {_accuracy(record)}{trained}{left_out}, {record.host_seconds:.1f} s"
        )

    def _replace(self, text: str, total: int | None) -> None:
        self._drop()
        self._current = self._bars.add_task(text, total=total)

    def _drop(self) -> None:
        if self._current is not None:
            self._bars.remove_task(self._current)
            self._current = None


def _accuracy(record: RoundRecord) -> str:
    return "" if record.accuracy is None else f"accuracy {100 * record.accuracy:.1f} %, "
