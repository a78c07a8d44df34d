"""The processes a simulation started: find them, end them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection


def descendants(named: str = "") -> set[int]:
    """Return the ids of the live processes that this one started, and of those they started.

    named: only those whose command line begins so.
    """
    command = ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as listing:
        listed = listing.communicate()[0]
    children: dict[int, list[int]] = {}
    gone = {listing.pid}
    for line in listed.splitlines():
        pid, parent, state, arguments = (*line.split(maxsplit=3), "")[:4]
        children.setdefault(int(parent), []).append(int(pid))
        if state.startswith("Z") or not arguments.startswith(named):
            gone.add(int(pid))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        own = children.get(waiting.pop(), [])
        found.update(own)
        waiting += own
    return found - gone


def end_descendants(spare: Collection[int] = (), seconds: float = 2.0, named: str = "") -> None:
    """Kill the processes this one started, but those in `spare`, until none is left or time is up."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        left = [pid for pid in descendants(named) if pid not in spare and _kill(pid)]
        if not left:
            return
        time.sleep(0.05)


def _kill(pid: int) -> bool:
    """Return whether there was such a process, and there may be one still."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return True
