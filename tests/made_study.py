"""Made-up runs of a study, for tests of their readers: no training, accuracies that can be worked out by hand."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fed_asi import seeds as streams
from fed_asi.fleets.config import GroupConfig
from fed_asi.studies.cells import Cell, Setting, StudyRuns
from fed_asi.units import parse_bytes
from made_run import make

FINALS = {
    "plain": {0: 0.70, 1: 0.72, 2: 0.77},
    "better": {0: 0.80, 1: 0.83, 2: 0.86},  # +10, +11, +9 points
    "alike": {0: 0.72, 1: 0.70, 2: 0.76},  # +2, -2, -1 points
    "lone": {0: 0.9},
    "gone": {0: 0.0},
}


def run(
    folder: Path, *, seed: int, final: float, budget: int | None, rounds: int = 3, bytes_up: int = 1000
) -> Path:
    """One run of two groups, whose accuracy rises in equal steps to `final`."""
    groups = (
        GroupConfig(name="edge", count=2, budget=budget),
        GroupConfig(name="phone", count=1, budget=budget),
    )
    return make(
        folder,
        seed=seed,
        rounds=rounds,
        groups=groups,
        accuracy=lambda number: final * number / rounds,
        bytes_up=bytes_up,
    )


def study(
    home: Path,
    finals: Mapping[str, Mapping[int, float]],
    *,
    baseline: str | None = None,
    target: float | None = None,
    budgets: Mapping[str, int | None] | None = None,
    gaps: Mapping[tuple[str, int], str] | None = None,
    **how: int,
) -> StudyRuns:
    """finals: variant -> seed -> final accuracy."""
    gaps, budgets = gaps or {}, budgets or {}
    cells = []
    for number, (variant, by_seed) in enumerate(finals.items()):
        budget = budgets.get(variant, 65536 * (number + 1))
        settings: dict[str, Setting] = {"method.name": variant}
        for seed, final in by_seed.items():
            folder, gap = home / f"{number}-{seed}", gaps.get((variant, seed))
            if gap is None:
                run(folder, seed=seed, final=final, budget=budget, **how)
            cells.append(Cell(variant, seed, settings, folder, gap))
    return StudyRuns("made", "A made-up study", tuple(cells), baseline, target)


def add_column(folder: Path, table: str, column: str, value: str) -> None:
    """Fill a column of a run, one that this version does not write or writes nothing into here; value: SQL."""
    with contextlib.suppress(sqlite3.OperationalError):  # it is there
        change(folder, f"ALTER TABLE {table} ADD COLUMN {column} REAL")
    change(folder, f"UPDATE {table} SET {column} = {value}")


def change(folder: Path, sql: str) -> None:
    """Change a run's records behind its back."""
    with contextlib.closing(sqlite3.connect(folder / "run.sqlite")) as connection, connection:
        connection.execute(sql)


def grid(
    home: Path,
    methods: Mapping[str, float],
    budgets: Sequence[str],
    seeds: Sequence[int],
    *,
    final: Callable[[float, float], float],
    spread: float = 0.004,
    rounds: int = 8,
    **what: object,
) -> StudyRuns:
    """Every method with every budget; final: (a method's strength, the budget in KiB) -> accuracy."""
    cells = []
    for method, strength in methods.items():
        for budget in budgets:
            size = parse_bytes(budget)
            for seed in seeds:
                noise = streams.rng(seed, "study", method, budget).normal(0, spread)
                shift = 0.01 * streams.rng(seed, "shards").normal()
                reached = final(strength, (size or 2**20) / 1024) + shift + noise
                folder = home / f"{method}-{budget}-{seed}".replace(" ", "")
                run(folder, seed=seed, final=reached, budget=size, rounds=rounds)
                cells.append(
                    Cell(f"{method}, {budget}", seed, {"method.name": method, "budget": budget}, folder)
                )
    return StudyRuns("grid", "Everyone at each budget, every method", tuple(cells), **what)  # type: ignore[arg-type]
