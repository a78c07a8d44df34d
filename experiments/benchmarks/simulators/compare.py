"""Client-rounds a second: fed_asi beside pfl, fluke and Flower, the same work in each, each in its own environment.

    python experiments/benchmarks/simulators/compare.py --data-dir DIR \
        --python-pfl ENV/bin/python --python-fluke ENV/bin/python --python-flower ENV/bin/python \
        [--cases small_cnn resnet18 resnet18-last-4] [--repeats 3] [--rounds 4] [--json FILE]

An environment is what its simulator's own instructions make, with the same torch: `pip install "pfl[pytorch]==0.6.0"`,
`pip install fluke-fl==0.8.1`, `pip install "flwr[simulation]==1.42.0"`. A simulator whose interpreter is not named is
left out. This script runs in fed_asi's environment. The repeats go round the simulators in turns; those of an earlier
call with the same settings, found in the JSON file, count too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from making import make
from same_work import Settings, Work, judge
from watching import Watched, watched

VERSION = 1
HERE = Path(__file__).parent
ROOT = HERE.parents[2]
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ONE_THREAD = dict.fromkeys(THREADS, "1")  # a client has one core


@dataclass(frozen=True)
class Case:
    """What is trained: a network, which of its layers, and the learning rate."""

    network: str
    layers: int | str
    lr: float


CASES = {
    "small_cnn": Case("small_cnn", "all", 0.05),
    "resnet18": Case("resnet18", "all", 0.0001),
    "resnet18-last-4": Case("resnet18", 4, 0.001),
}


@dataclass(frozen=True)
class Simulator:
    """How to run a simulator. python: whose interpreter. script, words: its adapter. processes: those that train."""

    python: str
    script: str
    processes: int
    words: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
SIMULATORS = {
    "fed_asi, Flower and Ray": Simulator("fed_asi", "with_fed_asi.py", 2, ("flower",)),
    "fed_asi, loop": Simulator("fed_asi", "with_fed_asi.py", 1, ("loop",)),
    "pfl, two processes": Simulator("pfl", "with_pfl.py", 2, launcher=TORCHRUN),
    "pfl": Simulator("pfl", "with_pfl.py", 1),
    "fluke": Simulator("fluke", "with_fluke.py", 1),
    "Flower": Simulator("flower", "with_flower.py", 2),
    "no simulator": Simulator("fed_asi", "with_torch.py", 1),
}
FLOOR = "no simulator"


@dataclass(frozen=True)
class Run:
    """One run of one simulator. setup: seconds. rounds: seconds of each round.

    difference: distance of the weights from those without a simulator, relative to how far training moved them.
    """

    setup: float
    rounds: tuple[float, ...]
    accuracy: float
    peak_bytes: int
    versions: dict[str, str]
    difference: float | None = None


@dataclass(frozen=True)
class Row:
    """A simulator's row in the table. failed: the last line that it printed, if it failed."""

    name: str
    processes: int
    runs: tuple[Run, ...]
    failed: str = ""

    @property
    def round_seconds(self) -> float:
        """Median over all rounds but the first of each run."""
        return statistics.median(seconds for run in self.runs for seconds in run.rounds[1:])


def command(simulator: Simulator, python: str, folder: Path, out: Path) -> list[str]:
    """Return the command that starts an adapter."""
    return [
        python,
        *simulator.launcher,
        str(HERE / simulator.script),
        str(folder),
        str(out),
        *simulator.words,
    ]


def run(simulator: Simulator, python: str, work: Work, out: Path) -> tuple[Run | None, str]:
    """Do one run and return it, or None with the last line that it printed."""
    environment = {**ONE_THREAD, "PYTHONPATH": str(ROOT if simulator.python == "fed_asi" else HERE)}
    out.mkdir(parents=True, exist_ok=True)
    seen = watched(command(simulator, python, work.folder, out), out, environment)
    (out / "log.txt").write_text(seen.output)
    if (
        seen.code
        or not (out / "times.json").exists()
        or not json.loads((out / "times.json").read_text())["ended"]
    ):
        lines = seen.output.strip().splitlines()
        return None, f"exit code {seen.code}: {lines[-1] if lines else 'nothing said'}"
    return read(work, out, seen), ""


def read(work: Work, out: Path, seen: Watched) -> Run:
    """Return a run as its adapter wrote it; its weights are evaluated here, on the work's test images."""
    said: dict[str, Any] = json.loads((out / "times.json").read_text())
    model = work.model()
    model.load_state_dict(torch.load(out / "end.pt", weights_only=True))
    rounds = tuple(float(seconds) for seconds in np.diff([said["begun"], *said["ended"]]))
    return Run(
        said["begun"] - seen.started, rounds, judge(model, work.test), seen.peak_bytes, said["versions"]
    )


def difference(work: Work, ours: Path, theirs: Path) -> float:
    """Return the distance between two runs' trained weights, relative to how far the second run moved them."""
    start, one, two = (
        torch.load(path, weights_only=True)
        for path in (work.folder / "start.pt", ours / "end.pt", theirs / "end.pt")
    )
    apart, moved = 0.0, 0.0
    for name in work.settings.trained:
        apart += float((one[name].double() - two[name].double()).square().sum())
        moved += float((two[name].double() - start[name].double()).square().sum())
    return (apart / moved) ** 0.5


def compare(work: Work, pythons: dict[str, str], names: Sequence[str], repeats: int) -> list[Row]:
    """Return a row per simulator; repeats are interleaved."""
    rows = {name: Row(name, SIMULATORS[name].processes, ()) for name in names}
    for repeat in range(repeats):
        for name, row in rows.items():
            if row.failed:
                continue
            out = work.folder / f"{repeat}-{name.replace(' ', '_').replace(',', '')}"
            found, failed = run(SIMULATORS[name], pythons[SIMULATORS[name].python], work, out)
            floor = work.folder / f"{repeat}-{FLOOR.replace(' ', '_')}"
            if found is not None and (floor / "end.pt").exists():
                found = replace(found, difference=difference(work, out, floor))
            rows[name] = replace(row, runs=(*row.runs, *([found] if found else [])), failed=failed)
            said = failed or ", ".join(f"{seconds:.2f}" for seconds in found.rounds if found)
            print(
                f"{work.settings.network}, repeat {repeat + 1}, {name}: {said}", file=sys.stderr, flush=True
            )
    return list(rows.values())


HEAD = (
    "| simulator | processes that train | set-up, s | a round, s | client-rounds/s | accuracy "
    "| weights, from those without a simulator | peak memory, MiB |\n|---|---|---|---|---|---|---|---|"
)


def lines(rows: Iterable[Row], cohort: int) -> list[str]:
    """Return the table of a case, fastest simulator first."""
    done = sorted((row for row in rows if row.runs), key=lambda row: row.round_seconds)
    table = HEAD.split("\n")
    for row in done:
        setup = statistics.median(run.setup for run in row.runs)
        accuracy = statistics.median(run.accuracy for run in row.runs)
        apart = [run.difference for run in row.runs if run.difference is not None]
        peak = max(run.peak_bytes for run in row.runs) / 1024**2
        rate, distance = cohort / row.round_seconds, f"{max(apart):.0e}" if apart else ""
        table.append(
            f"| {row.name} | {row.processes} | {setup:.1f} | {row.round_seconds:.2f} | {rate:.2f} "
            f"| {accuracy:.3f} | {distance} | {peak:.0f} |"
        )
    return table + [
        f"| {row.name} | {row.processes} | {row.failed} | | | | | |" for row in rows if row.failed
    ]


def settings_of(case: Case, given: argparse.Namespace) -> Settings:
    """Return the settings of a case's work, except for what is only known when it is made."""
    return Settings(
        network=case.network,
        layers=case.layers,
        trained=(),
        cohorts=(),
        clients=given.clients,
        images=given.images,
        test_images=given.test_images,
        public_images=512,
        classes=0,
        resolution=32,
        batch=32,
        epochs=1,
        lr=case.lr,
        alpha=0.5,
        seed=0,
        workers=2,
        source="cifar10",
        data=None if given.data_dir is None else str(given.data_dir.resolve()),
    )


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="the folder of cifar10.npz, else FED_ASI_DATA_DIR")
    for name in ("pfl", "fluke", "flower"):
        parser.add_argument(f"--python-{name}", help=f"the interpreter of an environment with {name}")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--simulators", nargs="+", choices=SIMULATORS, default=list(SIMULATORS))
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--cohort", type=int, default=10)
    parser.add_argument("--images", type=int, default=10_000, help="of all clients together")
    parser.add_argument("--test-images", type=int, default=1000, help="that judge each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where the work and the runs are kept; else a temporary one"
    )
    parser.add_argument("--json", type=Path, help="where the figures are kept from call to call")
    given = parser.parse_args(words)
    if given.rounds < 2:
        parser.error("--rounds: 2 or more, as the first round of a run does not count")
    return given


def known(path: Path | None, settings: dict[str, Any]) -> dict[str, list[Row]]:
    """Return the rows by case from an earlier call's file. Raises SystemExit if its settings differ."""
    if path is None or not path.exists():
        return {}
    said = json.loads(path.read_text())
    if (said.get("version"), said.get("settings")) != (VERSION, settings):
        raise SystemExit(f"{path} holds figures of other settings: name another file, or remove it")
    return {
        name: [Row(**{**row, "runs": tuple(map(run_of, row["runs"]))}) for row in rows]
        for name, rows in said["cases"].items()
    }


def run_of(said: dict[str, Any]) -> Run:
    """Return a run from its written form."""
    return Run(**{**said, "rounds": tuple(said["rounds"])})


def added(before: Iterable[Row], rows: Iterable[Row]) -> list[Row]:
    """Return the rows, with the runs of earlier rows of the same name put first."""
    earlier = {row.name: row for row in before}
    joined = [
        replace(row, runs=(*earlier[row.name].runs, *row.runs)) if row.name in earlier else row
        for row in rows
    ]
    return joined + [row for name, row in earlier.items() if name not in {row.name for row in joined}]


def main(words: Sequence[str] | None = None) -> int:
    """Print a table per case."""
    given = arguments(words)
    pythons = {"fed_asi": sys.executable}
    pythons |= {
        name: said for name in ("pfl", "fluke", "flower") if (said := getattr(given, f"python_{name}"))
    }
    names = [name for name in given.simulators if SIMULATORS[name].python in pythons]
    names.sort(key=lambda name: name != FLOOR)  # first, because the others' weights are compared with its own
    kept = ("clients", "cohort", "images", "test_images", "rounds")
    settings = {name: getattr(given, name) for name in kept}
    figures = known(given.json, settings)
    with tempfile.TemporaryDirectory() as temporary:
        for name in given.cases:
            folder = (given.folder or Path(temporary)).resolve() / name
            work = make(folder, settings_of(CASES[name], given), given.rounds, given.cohort)
            rows = added(figures.get(name, ()), compare(work, pythons, names, given.repeats))
            print(f"\n{name}:\n", *lines(rows, given.cohort), sep="\n", flush=True)
            figures[name] = rows
            if given.json:
                cases = {case: [asdict(row) for row in found] for case, found in figures.items()}
                said = {"version": VERSION, "settings": settings, "cores": os.cpu_count(), "cases": cases}
                given.json.write_text(json.dumps(said, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
