"""The cells of a study, one run each, and the questions that they are compared for.

The grid (grid.py) makes the cells, the runner (runner.py) fills their folders, and the statistics read them. The two
sides share nothing but this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Setting = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a study.

    variant: everything that sets it apart from other cells but the seed, as text for people. settings: the grid's keys
    and their values for this variant, as the study file has them. folder: its run folder. gap: why it holds no finished
    run; None if it does.
    """

    variant: str
    seed: int
    settings: Mapping[str, Setting]
    folder: Path
    gap: str | None = None


@dataclass(frozen=True, slots=True)
class StudyRuns:
    """A study as the statistics see it.

    baseline: the variant that others are compared with; None for no comparison. target: the accuracy (0 to 1) whose
    cost is asked; None if it is not. kind: the question that is answered first, "quality", "cost" or "robustness".
    """

    name: str
    title: str
    cells: tuple[Cell, ...]
    baseline: str | None = None
    target: float | None = None
    kind: str = "quality"
