"""What a study is made of once it has run: its cells, a run each, and what they were compared for.

The grid (grid.py) makes cells, the runner (runner.py) fills their folders, and the statistics read them: this
file is all that the two sides know of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a study.

    variant: what tells it from other cells but the seed, as people read it. settings: the grid's keys of that variant
    and their values as the study file writes them. folder: its run folder. gap: why there is no finished run in it;
    None where there is one.
    """

    variant: str
    seed: int
    settings: Mapping[str, Setting]
    folder: Path
    gap: str | None = None


@dataclass(frozen=True, slots=True)
class StudyRuns:
    """A study as its statistics see it.

    baseline: the variant that others are held against; None: none. target: the accuracy (0 to 1) whose cost is asked;
    None: not asked. kind: what is asked first, "quality", "cost" or "robustness".
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    baseline: str | None = None
    target: float | None = None
    kind: str = "quality"
