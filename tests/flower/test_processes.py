"""The processes that this one started: found by name, and ended together with their children."""

from __future__ import annotations

import subprocess
import sys
import time

from fed_asi.flower.processes import descendants, end_descendants

SLEEP = "import time; time.sleep(60)"
CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); {SLEEP}"


def wait_until(count: int, before: set[int]) -> set[int]:
    until = time.monotonic() + 20
    while len(found := descendants() - before) != count and time.monotonic() < until:
        time.sleep(0.02)
    return found


def test_children_and_theirs_are_found_and_ended() -> None:
    before = descendants()
    child = subprocess.Popen([sys.executable, "-c", CHILD])
    found = wait_until(2, before)
    assert child.pid in found
    assert len(found) == 2
    assert descendants(named="no such program") == set()
    end_descendants({child.pid, *before}, seconds=5.0)
    assert wait_until(1, before) == {child.pid}
    end_descendants(before, seconds=5.0)
    child.wait(5)  # its code is -9, or 0 where end_descendants reaped it first
    assert wait_until(0, before) == set()
