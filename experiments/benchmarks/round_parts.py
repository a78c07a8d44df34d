"""Where the time of a round goes: within its jobs, and on the server after them.

    python experiments/benchmarks/round_parts.py jobs RUN [--rounds 2]
    python experiments/benchmarks/round_parts.py server RUN [--rounds 6]

`jobs` repeats the jobs of a finished run's rounds one after another, without Flower and Ray, and divides their
processor time. `server` does the first rounds of its fleet again in one process, without jobs in other processes beside
them, and divides the wall time of what is not a job. What transport takes is in the table of simulation.py.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from fleet_runs import with_
from local_work import jobs_of

from fed_asi.devices import work
from fed_asi.devices.exchange import Upload
from fed_asi.devices.reply import Reply, answer
from fed_asi.memory.meter import ActivationMeter
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints, executor, round_end
from fed_asi.rounds.judging import Judge
from fed_asi.rounds.run import run_loop
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper
from fed_asi.workplace.features_again import Sources
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.place import Workplace

FIRST, LATER = "the first step, whose bytes are counted by layer", "the other steps"
Part = tuple[Any, str]  # who has the function, and its name
JOBS: dict[str, list[Part]] = {
    "planning": [(work, "plans_for")],
    "loading the weights": [(work, "_load_")],
    "compressing the layers": [(work, "_compress_")],
    "reading features and labels": [(Workplace, "batch")],
    "evaluation on held-out images, before and after": [(work, "_judged")],
    LATER: [(Stepper, "step_")],
    "of the steps: the meter": [(ActivationMeter, "__enter__"), (ActivationMeter, "__exit__")],
    "of the steps: moving the weights": [(Sgd, "step_")],
    "what is sent and kept": [(Upload, "finish"), (work, "factors_on"), (work, "named_on")],
    "the reply's JSON": [(Reply, "to_json")],
}
SERVER: dict[str, list[Part]] = {
    "evaluation on the test images": [(round_end, "evaluate")],
    "combining the updates": [(round_end.RoundEnd, "after")],
    "checking the replies": [(Judge, "answer")],
    "the checkpoint": [(checkpoints, "save")],
    "the digest of the weights": [(round_end, "weights_digest")],
    "the records": [(RunStore, "add_round")],
}


def jobs(given: argparse.Namespace) -> list[str]:
    """Return a table of how the processor time of a run's jobs is divided; the jobs are repeated."""
    place = open_workplace(given.run / "workplace", opened=Sources.open_rows)
    every = [job for found in jobs_of(given.run, given.rounds).values() for job, _ in found]
    for job in every[:2]:
        answer(place, job, place.reference, None)  # warms up
    spent = dict.fromkeys([FIRST, *JOBS], 0.0)
    _clock(JOBS, spent, time.thread_time)
    started = time.thread_time()
    for job in every:
        answer(place, job, place.reference, None)
    whole = time.thread_time() - started
    images = sum(len(place.shards[job.partition_id]) for job in every)
    rows = [f"| {name} | {1000 * 32 * one / images:.2f} | {one / whole:.1%} |" for name, one in spent.items()]
    inner = sum(one for name, one in spent.items() if not name.startswith("of the steps"))
    rows.append(f"| all else | {1000 * 32 * (whole - inner) / images:.2f} | {1 - inner / whole:.1%} |")
    head = ["| part of a job | ms for 32 images | of all |", "|---|---|---|"]
    return [*head, f"| all | {1000 * 32 * whole / images:.1f} | |", *rows]


def server(given: argparse.Namespace) -> list[str]:
    """Return a table of how the wall time of a round is divided that is not its jobs'."""
    config = open_workplace(given.run / "workplace", opened=Sources.open_rows).config
    config = with_(config, rounds=given.rounds, measure={"groups": "never"})
    spent = dict.fromkeys([*SERVER, "the jobs"], 0.0)
    _clock({**SERVER, "the jobs": [(executor, "do_job")]}, spent, time.perf_counter)
    with tempfile.TemporaryDirectory() as folder:
        run_loop(config, Path(folder) / "run")
        with RunStore.read(Path(folder) / "run") as store:
            whole = sum(record.host_seconds for record in store.rounds() if record.round)
    head = ["| part of a round on the server | ms |", "|---|---|"]
    rows = [f"| {name} | {1000 * spent[name] / given.rounds:.1f} |" for name in SERVER]
    rest = 1000 * (whole - sum(spent.values())) / given.rounds
    return [*head, *rows, f"| all else | {max(0.0, rest):.1f} |"]


def _clock(parts: dict[str, list[Part]], spent: dict[str, float], clock: Callable[[], float]) -> None:
    """Add what these functions take from now on to `spent`, by name."""
    for name, owners in parts.items():
        for owner, function in owners:
            setattr(owner, function, _clocked(getattr(owner, function), name, spent, clock))


def _clocked(
    call: Callable[..., Any], name: str, spent: dict[str, float], clock: Callable[[], float]
) -> Callable[..., Any]:
    @wraps(call)
    def clocked(*given: Any, **named: Any) -> Any:
        first = name == LATER and given[0].largest.steps == 0
        started = clock()
        try:
            return call(*given, **named)
        finally:
            spent[FIRST if first else name] += clock() - started

    return clocked


def main() -> None:
    """Print one of the two tables as Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("jobs", "server"))
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("\n".join({"jobs": jobs, "server": server}[given.part](given)))


if __name__ == "__main__":
    main()
