"""Where a round of fed_asi goes: the jobs, and what is done around them in the process that runs the rounds.

    python experiments/benchmarks/simulators/compare.py --cases resnet18 --simulators "no simulator" --repeats 1 \
        --data-dir DIR --folder WORK
    python experiments/benchmarks/simulators/round_parts.py WORK/resnet18 flower|loop

The first command writes the work. Of every round: its seconds, those of each job on its worker, and the seconds, the
processor seconds of the calling thread and the number of calls of each part.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from same_work import Work, one_thread
from with_fed_asi import config_of

from fed_asi.flower import messages, simulation
from fed_asi.results.progress import Unwatched
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.rounds import asking, checkpoints, judging, round_end, run, synchronous

PARTS: tuple[tuple[Any, str], ...] = (
    (synchronous.Synchronous, "_answers"), (asking, "sent"), (messages, "pack"), (messages, "read_reply"),
    (judging, "check_update"), (round_end.RoundEnd, "after"), (round_end, "evaluate"), (checkpoints, "save"),
    (round_end, "weights_digest"), (RunStore, "add_round"),
)  # fmt: skip


class Parts(Unwatched):
    """Prints the parts of each round."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = {}
        self.jobs: list[tuple[float, int]] = []

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call, timed."""

        def timed(*given: Any, **named: Any) -> Any:
            started, busy = time.perf_counter(), time.thread_time()
            try:
                return call(*given, **named)
            finally:
                part = self.spent.setdefault(name, [0.0, 0.0, 0])
                for place, more in enumerate((time.perf_counter() - started, time.thread_time() - busy, 1)):
                    part[place] += more

        return timed

    def round_started(self, round: int, rounds: int, asked: int) -> None:  # noqa: ARG002 - a watcher's
        """Begin anew."""
        self.spent.clear()
        self.jobs.clear()

    def device_done(self, record: DeviceRoundRecord) -> None:
        """Record a job."""
        self.jobs.append((record.host_seconds or 0.0, record.steps or 0))

    def round_done(self, record: RoundRecord) -> None:
        """Print the round."""
        if record.round:
            jobs, steps = sum(taken for taken, _ in self.jobs), sum(steps for _, steps in self.jobs)
            print(f"round {record.round}: {record.host_seconds:.2f} s; jobs {jobs:.2f} s, {steps} steps")
            for name, (wall, busy, calls) in self.spent.items():
                print(f"  {name:15s} {wall:6.3f} s, {busy:6.3f} s of processor time, {calls:.0f} calls")


def main(folder: Path, backend: str) -> None:
    one_thread()
    parts, work = Parts(), Work.open(folder)
    for owner, name in PARTS:
        setattr(owner, name, parts.timed(name, getattr(owner, name)))
    config = config_of(work.settings, folder / "start.pt", backend)
    data_dir = None if work.settings.data is None else Path(work.settings.data)
    with tempfile.TemporaryDirectory() as runs:
        go = run.run_loop if backend == "loop" else simulation.run_flower
        go(config, Path(runs) / "run", data_dir=data_dir, watcher=parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="WORK")
    parser.add_argument("backend", choices=("flower", "loop"))
    given = parser.parse_args()
    main(given.folder, given.backend)
