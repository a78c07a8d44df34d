"""Kill a run's whole process tree at random moments, resume it each time, and compare it with an uninterrupted run.

    python experiments/benchmarks/kill_test.py [--kills 20] [--first 1] [--in-rounds] [--at-work N] [--log FILE]

Every kill is a SIGKILL to the run's session: server, Ray and workers at once. The run is then resumed until it ends,
and its weights and records must equal those of the uninterrupted run, to the bit.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fed_asi import seeds
from fed_asi.results.lock import is_locked
from fed_asi.results.schema import TIMES
from fed_asi.results.store import RunStore

FLEET = """
name = "killed"
seed = 3
rounds = 8
cohort = 4
[model]
name = "tiny"
weights = "public"
[data]
public = 120
[pretrain]
epochs = 2
[method]
name = "{method}"
layers = 2
[train]
epochs = 4
{clock}
[[groups]]
name = "tight"
count = 4
budget = "96 KiB"
batch_size = 16
{slow}
[[groups]]
name = "roomy"
count = 4
budget = "unlimited"
batch_size = 16
{quick}
"""
RUN = [sys.executable, "-m", "fed_asi", "run"]


def fleet_file(method: str, at_work: int | None) -> str:
    """Return the fleet as TOML. at_work: asynchronous, with so many devices at work at any time; None: rounds."""
    if at_work is None:
        return FLEET.format(method=method, clock="", slow="", quick="")
    return FLEET.format(
        method=method,
        clock=f"[clock]\nat_work = {at_work}",
        slow='device = { preset = "stm32h743", spread = 0.4 }',
        quick='device = "raspberry-pi-5"',
    )


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    """Start a run in its own session, so that all of it can be killed."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
    return subprocess.Popen([*RUN, *arguments], start_new_session=True, **quiet)


def finish(arguments: list[str]) -> int:
    """Run to the end and return the exit code; no process outlives this call."""
    process = start(arguments)
    try:
        return process.wait()
    finally:
        kill_session(process)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to every process in the session, whatever group it has moved to."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,sess="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    for pid in [pid for pid, session in pairs if session == process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def records(folder: Path) -> tuple[list[object], str | None]:
    """Return all records except times, and the hash of the weights."""
    with RunStore.read(folder) as store:
        rows = [*store.rounds(), *store.device_rounds()]
        kept = [{k: getattr(r, k) for k in r.__dataclass_fields__ if k not in TIMES} for r in rows]
        return kept, store.run().weights_sha256


def last_round(folder: Path) -> int:
    """Return the last recorded round, or -1 before any."""
    try:
        with RunStore.read(folder) as store:
            return max((record.round for record in store.rounds()), default=-1)
    except Exception:
        return -1


def seconds_of_rounds(folder: Path) -> float:
    """Return how long a run's rounds took together, without its start."""
    with RunStore.read(folder) as store:
        return sum(record.host_seconds or 0.0 for record in store.rounds())


def one_kill(
    number: int, fleet: Path, out: Path, backend: str, longest: float, in_rounds: bool
) -> tuple[float, int, Path]:
    """Start a run, kill it at a random moment, and resume it to its end; return when and where it was killed.

    longest: seconds within which the moment is drawn, from the start or, with in_rounds, from round 0's record.
    """
    out = out / f"kill-{number}"
    moment = float(seeds.rng(0, "kill", number).uniform(0.0 if in_rounds else 1.0, longest))
    started = time.monotonic()
    process = start([str(fleet), "--out", str(out), "--backend", backend])
    try:
        while in_rounds and last_round(out / "killed") < 0 and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moment)
        moment = time.monotonic() - started
    finally:
        kill_session(process)
    folder = out / "killed"
    while is_locked(folder):
        time.sleep(0.05)
    reached = last_round(folder)
    for _ in range(3):
        again = ["--resume", str(folder), "--backend", backend]
        if not (folder / "run.sqlite").exists():  # killed before its first record
            shutil.rmtree(folder, ignore_errors=True)
            again = [str(fleet), "--out", str(out), "--backend", backend]
        if finish(again) == 0:
            break
        shutil.rmtree(folder, ignore_errors=True) if reached < 0 else None
    return moment, reached, folder


def main() -> int:
    """Run the test; return 0 when every resumed run equals the uninterrupted one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--first", type=int, default=1, help="of the kills, whose moments are drawn by number"
    )
    parser.add_argument("--backend", default="flower", choices=("flower", "loop"))
    # "asi-published" has warm factors: state of the devices, which a resumed run must find again.
    parser.add_argument("--method", default="asi", choices=("asi", "asi-published"))
    parser.add_argument("--in-rounds", action="store_true", help="kill after round 0, not at any moment")
    parser.add_argument(
        "--at-work", type=int, help="make updates of replies, so many devices at work at a time"
    )
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(1))  # so that no process outlives this one
    lines = []
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        os.environ["FED_ASI_FEATURES_DIR"] = str(out / "features")
        fleet = out / "fleet.toml"
        fleet.write_text(fleet_file(given.method, given.at_work))
        started = time.monotonic()
        code = finish([str(fleet), "--out", str(out / "whole"), "--backend", given.backend])
        longest = time.monotonic() - started
        expected = records(out / "whole" / "killed")
        lines.append(f"uninterrupted: exit {code}, {longest:.1f} s, weights {str(expected[1])[:12]}")
        print(lines[-1], flush=True)
        longest = seconds_of_rounds(out / "whole" / "killed") if given.in_rounds else longest
        equal = 0
        for number in range(given.first - 1, given.first - 1 + given.kills):
            moment, reached, folder = one_kill(number, fleet, out, given.backend, longest, given.in_rounds)
            same = records(folder) == expected
            equal += same
            where = "before round 0" if reached < 0 else f"after round {reached}"
            lines.append(f"kill {number + 1} at {moment:.2f} s, {where}: {'equal' if same else 'DIFFERENT'}")
            print(lines[-1], flush=True)
            shutil.rmtree(folder)
    lines.append(f"{equal} of {given.kills} resumed runs equal the uninterrupted one to the bit")
    print(lines[-1])
    if given.log:
        command = (
            f"python experiments/benchmarks/kill_test.py --first {given.first} --kills {given.kills} "
            f"--backend {given.backend}{' --in-rounds' if given.in_rounds else ''}"
            f"{'' if given.at_work is None else f' --at-work {given.at_work}'}"
        )
        given.log.write_text("\n".join(["# The kill test", "", f"`{command}`", "", "```", *lines, "```", ""]))
    return 0 if equal == given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
