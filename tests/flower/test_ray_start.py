"""Ray's start is tried again on a busy machine; a failure in the end is one line with Ray's own words."""

from __future__ import annotations

import pytest

from fed_asi.errors import RunError
from fed_asi.flower.ray_start import tried
from fed_asi.flower.simulation import _plain


class Start:
    def __init__(self, failures: int) -> None:
        self.failures, self.begun, self.cleared = failures, 0, 0

    def begin(self) -> None:
        self.begun += 1
        if self.begun <= self.failures:
            raise Exception("The current node timed out during startup.\nmore")  # as Ray raises it

    def clear(self) -> None:
        self.cleared += 1


def test_a_start_that_fails_once_is_cleared_away_and_done_again() -> None:
    start = Start(failures=1)
    tried(start.begin, start.clear)
    assert (start.begun, start.cleared) == (2, 1)


def test_a_start_that_always_fails_is_one_line() -> None:
    start = Start(failures=9)
    with pytest.raises(RunError, match=r"^Ray did not start in 3 tries: .* timed out during startup\. Free"):
        tried(start.begin, start.clear)
    assert (start.begun, start.cleared) == (3, 3)


def test_the_first_cause_is_named_however_deep_it_lies() -> None:
    first = ValueError("no such port")
    second = RuntimeError("Simulation Runtime crashed.")
    second.__cause__ = first
    third = RuntimeError("An error was encountered. Ending simulation.")
    third.__cause__ = second
    assert str(_plain(third)) == "Flower's simulation failed: no such port"
