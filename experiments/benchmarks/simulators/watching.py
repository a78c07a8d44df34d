"""Runs a command and watches it: its seconds, and the most memory that all of its processes had at any time."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "SIMULATORS_RUN"  # a variable that every process of a run inherits, Ray's daemons included
EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Watched:
    """started: time.time() when the command began. peak_bytes: resident; shared pages count in each process."""

    started: float
    seconds: float
    peak_bytes: int
    code: int
    output: str


def watched(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Watched:
    """Run a command in a folder to its end and return what was measured."""
    token = uuid.uuid4().hex
    peak, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(EVERY_SECONDS):
            peak[0] = max(peak[0], resident_bytes(token))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    started, clock = time.time(), time.perf_counter()
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment, MARK: token},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    seconds = time.perf_counter() - clock
    ended.set()
    looking.join()
    return Watched(started, seconds, peak[0], done.returncode, done.stdout)


def resident_bytes(token: str) -> int:
    """Return the resident bytes of all processes with this mark in their environment."""
    wanted, page, total = f"{MARK}={token}".encode(), os.sysconf("SC_PAGE_SIZE"), 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, IndexError):  # the process may end meanwhile
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                total += int((process / "statm").read_text().split()[1]) * page
    return total
