"""What keeps people waiting, told where it happens to whoever shows it outside: a download knows no terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, int, int | None], None]  # what is done, steps done, steps in all; None: not known

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let a listener hear, in this thread, what is told while the block lasts."""
    before = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(before)


def heard() -> bool:
    """Return whether anyone listens."""
    return _listener.get() is not None


def tell(text: str, done: int, total: int | None = None) -> None:
    """Tell whoever listens how far something is; it is over when all steps are done."""
    listener = _listener.get()
    if listener is not None:
        listener(text, done, total)
