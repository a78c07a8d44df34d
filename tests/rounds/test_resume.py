"""Runs that are killed or stopped from outside, and resumed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fed_asi.errors import RunError
from fed_asi.results.store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]
ROOT = Path(__file__).parents[2]


UPDATES = ("--at-work", "3", "--in-rounds")


@pytest.mark.parametrize(
    ("backend", "kills", "kind"),
    [("loop", 2, ()), ("flower", 1, ()), ("loop", 3, UPDATES), ("flower", 1, UPDATES)],
)
def test_killed_at_any_moment_it_ends_with_the_same_bits(
    backend: str, kills: int, kind: tuple[str, ...]
) -> None:
    script = ROOT / "experiments" / "benchmarks" / "kill_test.py"
    command = [sys.executable, str(script), "--kills", str(kills), "--backend", backend]
    command += ["--method", "asi-published", *kind]
    test = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        said, _ = test.communicate(timeout=550)
    finally:
        test.terminate()
        test.wait()
    assert test.returncode == 0, said


FLEET = """
name = "stopped"
rounds = 500
cohort = 4
[model]
name = "tiny"
weights = "none"
[data]
public = 64
[method]
name = "vanilla"
layers = 2
[train]
epochs = 20
[[groups]]
name = "all"
count = 4
budget = "unlimited"
batch_size = 16
"""


@pytest.mark.parametrize("backend", ["loop", "flower"])
def test_ctrl_c_ends_it_at_once_and_it_can_go_on(tmp_path: Path, backend: str) -> None:
    (tmp_path / "fleet.toml").write_text(FLEET)
    environment = {**os.environ, "FED_ASI_FEATURES_DIR": str(tmp_path / "features")}
    command = [sys.executable, "-m", "fed_asi", "run", str(tmp_path / "fleet.toml")]
    command += ["--out", str(tmp_path), "--backend", backend]
    run = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, stderr=subprocess.PIPE)
    folder = tmp_path / "stopped"
    try:
        wait_for_round(folder, 1)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to everything at once
        _, said = run.communicate(timeout=60)  # far less than its rounds take
        until = time.monotonic() + 30
        while (left := alive_in_session(run.pid)) and time.monotonic() < until:
            time.sleep(0.1)
    finally:
        kill_session(run)
    assert run.returncode == 130
    assert b"go on with: fed-asi run --resume" in said
    assert not left
    with RunStore.read(folder) as store:
        assert store.run().status == "interrupted"
        reached = len(store.rounds())
    again = [*command[:4], "--resume", str(folder), "--backend", "loop"]
    resumed = subprocess.Popen(again, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for_round(folder, reached)
        resumed.send_signal(signal.SIGINT)
        assert resumed.wait(timeout=60) == 130
    finally:
        resumed.kill()


def alive_in_session(session: int) -> list[str]:
    """Return the commands of a session's live processes."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "sess=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [row[-1] for row in rows if int(row[0]) == session and not row[1].startswith("Z")]


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a run that was started in a session of its own."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,sess="], capture_output=True, text=True, check=True)
    for pid, session in (line.split() for line in listed.stdout.splitlines()):
        if int(session) == process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
    process.wait()


def wait_for_round(folder: Path, round: int, seconds: float = 250.0) -> None:
    """Return when the round is recorded."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        # Between the file and its tables there is a moment in which it holds no run.
        if (folder / "run.sqlite").exists():
            with contextlib.suppress(RunError), RunStore.read(folder) as store:
                if len(store.rounds()) > round:
                    return
        time.sleep(0.1)
    raise AssertionError(f"round {round} did not come within {seconds} s")
