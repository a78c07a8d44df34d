"""Ray's start is repeated on a busy machine; a final failure is one line with Ray's own words."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from fed_asi.errors import RunError
from fed_asi.flower.ray_start import tried


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


def test_what_sigterm_does_stays_as_it_was() -> None:
    code = (
        "import ctypes, signal\n"
        "from fed_asi.flower.ray_start import sigterm_kept\n"
        "with sigterm_kept():\n"
        "    ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1))  # ignore it, as C code would\n"
        "signal.raise_signal(signal.SIGTERM)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGTERM
