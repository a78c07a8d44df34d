"""A call beside the main thread: its result, its error, and that it stops if the rest fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError

import pytest

from fed_asi.workplace.aside import aside


def test_its_result_is_there_when_it_is_asked_for():
    with aside(lambda _check: threading.current_thread().name) as found:
        assert found.result(5) == "aside"


def test_its_error_is_raised_where_the_result_is_asked_for():
    def fails(_check: Callable[[], None]) -> None:
        raise ZeroDivisionError("seven")

    with aside(fails) as found, pytest.raises(ZeroDivisionError, match="seven"):
        found.result(5)


def test_it_stops_where_the_block_fails():
    def works(check: Callable[[], None]) -> None:
        while True:
            check()
            time.sleep(0.001)

    kept = []

    def fails() -> None:
        with aside(works) as found:
            kept.append(found)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    with pytest.raises(CancelledError):
        kept[0].result(0)
