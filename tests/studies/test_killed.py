"""A study killed at random moments, in every way, and continued: the same bits as an uninterrupted one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fed_asi.errors import FedAsiError
from fed_asi.results.lock import is_locked
from fed_asi.results.store import RunStore
from fed_asi.studies.ledger import study_runs
from runs import records
from study_files import FLEET, write_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]

# Factors of "asi-published" are warm: a state of devices, which a resumed run has to find again.
ROUNDS = 40
WARM = FLEET.replace('name = "vanilla"', 'name = "asi-published"').replace("rounds = 2", f"rounds = {ROUNDS}")
STUDY = """
name = "killed"
fleet = "fleet.toml"
[grid]
seed = [0, 1]
budget = ["96 KiB", "unlimited"]
"""


@contextmanager
def study(folder: Path, out: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a study in a session of its own; nothing of it outlives the block."""
    environment = {**os.environ, "FED_ASI_FEATURES_DIR": str(folder / "features")}
    command = [sys.executable, "-m", "fed_asi", "study", str(folder / "study.toml")]
    command += ["--out", str(folder / out), "--jobs", "2", *words]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finish(folder: Path, out: str, *words: str) -> tuple[int, str]:
    with study(folder, out, *words) as process:
        _, said = process.communicate(timeout=600)
        return process.returncode, said.decode()


def rounds_of(home: Path) -> int:
    """Return how many rounds are recorded, of all runs."""
    total = 0
    for folder in (home / "runs").glob("*"):
        with suppress(FedAsiError), RunStore.read(folder) as store:
            total += len(store.rounds())
    return total


def at_work(home: Path) -> int:
    """Return how many runs some process is at, with so many rounds before them that they cannot end at once."""
    count = 0
    for folder in (home / "runs").glob("*"):
        with suppress(FedAsiError), RunStore.read(folder) as store:
            count += is_locked(folder) and len(store.rounds()) < ROUNDS - 5
    return count


def hold(process: subprocess.Popen[bytes], home: Path, rounds: int, busy: int, linger: float) -> None:
    """Stop the whole study where it is, so many rounds and seconds on, and `busy` runs at work in that moment.

    Time stands still for it from here on: however quick the machine, what is killed next was at work.
    """
    until = time.monotonic() + 300
    while True:
        assert process.poll() is None, "it ended before it was to be killed"
        assert time.monotonic() < until, "no round came"
        if rounds_of(home) >= rounds:
            time.sleep(linger)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGSTOP)
            if at_work(home) >= busy:
                return
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGCONT)
        time.sleep(0.02)


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    listed = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, parent, line in rows if int(parent) == process.pid and "spawn_main" in line]


def everything(home: Path) -> dict[str, object]:
    return {cell.folder.name: records(cell.folder) for cell in study_runs(home).cells}


WAYS = ["all at once", "the parent", "a worker", "SIGTERM", "Ctrl-C"]


def kill(process: subprocess.Popen[bytes], way: str) -> None:
    match way:
        case "all at once":
            os.killpg(process.pid, signal.SIGKILL)
        case "the parent":
            process.kill()
        case "a worker":
            os.kill(workers_of(process)[0], signal.SIGKILL)
        case "SIGTERM":
            process.terminate()
        case "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("seed", [1])
def test_killed_five_times_it_ends_with_the_same_bits(tmp_path: Path, seed: int) -> None:
    write_study(tmp_path, STUDY, WARM)
    assert finish(tmp_path, "whole")[0] == 0
    expected = everything(tmp_path / "whole" / "killed")
    assert len(expected) == 4
    drawn = random.Random(seed)
    home = tmp_path / "cut" / "killed"
    for way in drawn.sample(WAYS, len(WAYS)):
        with study(tmp_path, "cut") as process:
            # Of two workers, one is killed: both are at a run, so that it is one that has something to lose.
            busy = 2 if way == "a worker" else 1
            hold(process, home, rounds_of(home) + drawn.randint(1, 3), busy, drawn.uniform(0.0, 0.3))
            kill(process, way)
            _, said = process.communicate(timeout=300)
        until = time.monotonic() + 60  # workers of a parent that was killed end by themselves
        while any(is_locked(folder) for folder in (home / "runs").glob("*")):
            assert time.monotonic() < until, "a worker outlived its parent"
            time.sleep(0.05)
        check(way, process.returncode, said.decode(), home)
        if way == "a worker":
            continue  # the others went on to their end
    code, said_last = finish(tmp_path, "cut")
    assert code == 0, said_last
    assert everything(home) == expected


def check(way: str, code: int, said: str, home: Path) -> None:
    """Each way to be stopped has its exit code and its line."""
    if way in {"all at once", "the parent"}:
        assert code == -signal.SIGKILL
    elif way == "a worker":
        assert code == 1
        assert "gap: its worker process was ended by SIGKILL" in said
        assert "1 gap; the same command continues with them" in said
        assert sum(cell.gap is not None for cell in study_runs(home).cells) == 1
    else:
        assert code == 130, said
        assert "stopped; go on with: fed-asi study" in said
