"""How the server waits, and that it stops when told to."""

from __future__ import annotations

import time

import pytest

from fed_asi.flower.waiting import Interrupted, Waiting


def test_a_pause_is_as_long_as_asked_and_never_shorter_than_a_poll() -> None:
    waiting = Waiting(lambda: False, poll_seconds=0.02)
    for asked, least in ((0.0, 0.02), (0.05, 0.05)):
        started = time.monotonic()
        waiting.pause(asked)
        assert time.monotonic() - started >= least


def test_a_run_that_is_to_stop_does_not_wait() -> None:
    started = time.monotonic()
    with pytest.raises(Interrupted):
        Waiting(lambda: True).pause(60.0)
    assert time.monotonic() - started < 10.0
