"""What devices' local training costs by itself, without Flower and Ray.

    python experiments/benchmarks/local_work.py again RUN [--rounds 6] [--workers 1]   # JSON
    python experiments/benchmarks/local_work.py micro [--log docs/results/scale.md]

`again` repeats the jobs of rounds 2, 3, ... of a finished run, one after another or in several processes side by side,
without Flower and Ray; simulation.py compares their wall time with the run's, and round_parts.py divides it. `micro`
compares micro-batches of 1, side by side, with one full batch, on the cifar10 fleet's features.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing.queues import Queue
from pathlib import Path

import torch

from fed_asi.devices.job import Job
from fed_asi.devices.reply import answer
from fed_asi.devices.work import LocalResult, train_locally
from fed_asi.errors import BudgetError
from fed_asi.fleets.file import load_config
from fed_asi.fleets.resources import Resources
from fed_asi.planning.plan import Plan
from fed_asi.results.progress import Unwatched
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints
from fed_asi.rounds.executor import LoopExecutor
from fed_asi.rounds.job_order import Costs, in_order
from fed_asi.rounds.loop import Rounds
from fed_asi.units import parse_bytes
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.features_again import Sources
from fed_asi.workplace.opening import open_workplace
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare

FLEET = Path(__file__).parents[1] / "fleets" / "cifar10.toml"
BUDGETS = ("64 KiB", "128 KiB", "256 KiB", "512 KiB", "1 MiB", None)


def again(given: argparse.Namespace) -> list[str]:
    """Return one line of JSON: by round, each job's seconds and CPU seconds, and when the last job ended."""
    context = multiprocessing.get_context("spawn")
    waiting, done = context.Queue(), context.Queue()
    processes = [
        context.Process(target=_work, args=(given.run, waiting, done), daemon=True)
        for _ in range(given.workers)
    ]
    for process in processes:
        process.start()
    found = {}
    costs = Costs()
    for round, jobs in jobs_of(given.run, given.rounds).items():
        images = {job.partition_id: count for job, count in jobs}

        def cost(job: Job, images: dict[int, int] = images) -> float:
            return costs.estimate(job.resources.budget_bytes, images[job.partition_id])

        order = in_order([job for job, _ in jobs], cost, given.workers)
        if round == 1:  # every worker opens the workplace and warms up
            order = [replace(order[0])] * given.workers
        started = time.perf_counter()
        for job in order:
            waiting.put(job)
        rows = [done.get() for _ in order]
        ended = time.perf_counter() - started
        for job, seconds, _ in rows:
            costs.add(job.resources.budget_bytes, seconds, images[job.partition_id])
        if round > 1:
            found[round] = {"seconds": [r[1] for r in rows], "cpu": [r[2] for r in rows], "ended": ended}
    for _ in processes:
        waiting.put(None)
    for process in processes:
        process.join()
    return [json.dumps(found)]


def jobs_of(folder: Path, rounds: int) -> dict[int, list[tuple[Job, int]]]:
    """Return the jobs of a run's first rounds, each with its number of images and without warm factors."""
    place = open_workplace(folder / "workplace", opened=Sources.open_rows)
    with RunStore.read(folder) as store:
        loop = Rounds(place, store, LoopExecutor(place, folder / "devices"), Unwatched())
        return {
            round: [
                (replace(job, factors_round=0, check=False), len(place.shards[job.partition_id]))
                for job in loop.jobs(round)
            ]
            for round in range(1, rounds + 2)
        }


def _work(folder: Path, waiting: Queue[Job | None], done: Queue[tuple[Job, float, float]]) -> None:
    """Do jobs until None comes, from the run's final weights: a step's cost does not depend on the weights."""
    place = open_workplace(folder / "workplace", opened=Sources.open_rows)
    torch.set_num_threads(place.config.compute.threads)
    with RunStore.read(folder) as store:
        last = max(record.round for record in store.rounds())
    tensors = checkpoints.load(folder / "checkpoints", last, run_fingerprint(place.config)).tensors
    while (job := waiting.get()) is not None:
        started, busy = time.perf_counter(), time.process_time()
        answer(place, job, tensors, None)
        done.put((job, time.perf_counter() - started, time.process_time() - busy))


def micro(given: argparse.Namespace) -> list[str]:
    """Return a table of a device's epoch with micro-batches of 1, side by side, against one full batch."""
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(FLEET, ["train.epochs=1"])
        groups = [{**g, "micro_batch": None} for g in config.model_dump(mode="json")["groups"]]
        config = type(config).model_validate({**config.model_dump(mode="json"), "groups": groups})
        place = prepare(config, Path(folder) / "workplace")
        rows = [_row(place, budget, given.device) for budget in BUDGETS]
    size = len(place.shard(given.device).train)
    head = (
        f"| budget | micro-batch 1: plan | s an epoch ({size} images) | full batch of 32: plan "
        "| s an epoch | ratio |"
    )
    return [head, "|---|---|---|---|---|---|", *rows]


def _row(place: Workplace, budget: str | None, device: int) -> str:
    """Return one budget's row; the two ways are interleaved, the median of five each."""
    size = None if budget is None else parse_bytes(budget)
    plans = {}
    for micro_batch in (1, 32):
        try:
            plans[micro_batch] = _plan(place, size, micro_batch)
        except BudgetError:
            continue
    seconds: dict[int, list[float]] = {micro_batch: [] for micro_batch in plans}
    for _ in range(5):
        for micro_batch in plans:
            started = time.perf_counter()
            _epoch(place, device, size, micro_batch)
            seconds[micro_batch].append(time.perf_counter() - started)
    cells = [budget or "unlimited"]
    for micro_batch in (1, 32):
        known = micro_batch in plans
        cells += [_described(plans[micro_batch]) if known else "does not fit"]
        cells += [f"{statistics.median(seconds[micro_batch]):.2f}" if known else "-"]
    both = len(plans) == 2
    times = f"{statistics.median(seconds[1]) / statistics.median(seconds[32]):.2f}" if both else "-"
    return f"| {' | '.join([*cells, times])} |"


def _plan(place: Workplace, budget: int | None, micro_batch: int) -> Plan:
    return place.plans.first(Resources(budget, 32, micro_batch))


def _epoch(place: Workplace, device: int, budget: int | None, micro_batch: int) -> LocalResult:
    job = Job(1, device, Resources(budget, 32, micro_batch), 0.05)
    return train_locally(place, job, place.reference)


def _described(plan: Plan) -> str:
    kinds = sorted({method.kind for method in plan.methods.values()} - {"frozen"})
    return f"{'+'.join(kinds)}, {plan.planned_bytes:,} B"


def main() -> int:
    """Run one of the two; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    jobs = commands.add_parser("again")
    jobs.add_argument("run", type=Path)
    jobs.add_argument("--rounds", type=int, default=6)
    jobs.add_argument("--workers", type=int, default=1)
    jobs.set_defaults(make=again)
    small = commands.add_parser("micro")
    small.add_argument("--device", type=int, default=33)
    small.add_argument("--log", type=Path)
    small.set_defaults(make=micro)
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = given.make(given)
    print("\n".join(lines))
    if getattr(given, "log", None):
        with given.log.open("a") as log:
            log.write("\n".join(["", *lines, "", f"`python {' '.join(sys.argv)}`", ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
