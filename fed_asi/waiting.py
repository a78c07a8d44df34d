"""Progress of slow work, reported to whoever shows it: a download itself knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int | None], None]  # text, steps done, steps in total (None: unknown)

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send this thread's progress to a listener while the block lasts."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def heard() -> bool:
    """Return whether anyone listens."""
    return _listener.get() is not None


def tell(text: str, done: int, total: int | None = None) -> None:
    """Report progress to the listener, if there is one; the work is over when all steps are done."""
    listener = _listener.get()
    if listener is not None:
        listener(text, done, total)
