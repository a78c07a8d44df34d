"""What a device's local training costs by itself, in one process with nothing beside it.

    python experiments/benchmarks/local_work.py alone RUN [--rounds 4]   # JSON: seconds of each device-round
    python experiments/benchmarks/local_work.py micro [--log docs/scale.md]

`alone` does the jobs of a finished run's rounds 2, 3, ... again, which simulation.py holds its wall time against.
`micro` compares micro-batches of 1, side by side, with one full batch, on the cifar10 fleet's features.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from fed_asi import checkpoint
from fed_asi.config_file import load_config
from fed_asi.errors import BudgetError
from fed_asi.local import Job, LocalResult, train_locally
from fed_asi.plans import Plan
from fed_asi.prepare import prepare
from fed_asi.progress import Unwatched
from fed_asi.records import RunStore
from fed_asi.replies import answer
from fed_asi.rounds import LoopExecutor, Rounds
from fed_asi.units import parse_bytes
from fed_asi.workplace import Workplace, fingerprint, open_workplace

FLEET = Path(__file__).parents[1] / "fleets" / "cifar10.toml"
BUDGETS = ("64 KiB", "128 KiB", "256 KiB", "512 KiB", "1 MiB", None)


def jobs_again(folder: Path, rounds: int) -> Iterator[tuple[int, int, float]]:
    """Yield (round, device, seconds of its training) of a run's rounds from the second on, done again here.

    The weights are those of the run's end: what a step costs does not hang on them.
    """
    place = open_workplace(folder / "workplace")
    torch.set_num_threads(place.config.compute.threads)
    with RunStore.read(folder) as store:
        loop = Rounds(place, store, LoopExecutor(place, folder / "devices"), Unwatched())
        last = max(record.round for record in store.rounds())
        tensors = checkpoint.load(folder / "checkpoints", last, fingerprint(place.config)).tensors
        answer(place, loop.jobs(1)[0], tensors, None)  # the first job also warms the process up
        for round in range(2, 2 + rounds):
            for job in loop.jobs(round):
                reply, _ = answer(place, replace(job, factors_round=0), tensors, None)
                yield round, job.partition_id, float(reply.host_seconds or 0.0)


def alone(given: argparse.Namespace) -> list[str]:
    """Return the seconds of each round's device-rounds, one after another, as one line of JSON."""
    found: dict[int, list[float]] = {}
    for round, _, seconds in jobs_again(given.run, given.rounds):
        found.setdefault(round, []).append(seconds)
    return [json.dumps(found)]


def micro(given: argparse.Namespace) -> list[str]:
    """Return the table of a device's epoch with micro-batches of 1, side by side, beside one full batch."""
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
    """Return one budget's row; the two are timed in turns, the median of five each."""
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
    from fed_asi.device_plans import Limits

    return place.plans.first(Limits(budget, 32, micro_batch))


def _epoch(place: Workplace, device: int, budget: int | None, micro_batch: int) -> LocalResult:
    job = Job(1, device, budget, 32, micro_batch, 0.05)
    return train_locally(place, job, place.reference)


def _described(plan: Plan) -> str:
    kinds = sorted({method.kind for method in plan.methods.values()} - {"frozen"})
    return f"{'+'.join(kinds)}, {plan.planned_bytes:,} B"


def main() -> int:
    """Do one of the two; return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    again = commands.add_parser("alone")
    again.add_argument("run", type=Path)
    again.add_argument("--rounds", type=int, default=4)
    again.set_defaults(make=alone)
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
