"""How long a study will take and how much disk, from the runs that are done; before there is one, nobody knows."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from fed_asi.studies.standing import Standing

ASSUMED_SECONDS = 60.0  # of a run, where a grid is so large that one has to be told something
MANY_RUNS, MANY_HOURS = 200, 12.0  # beyond which the user is asked


class Clock:
    """Seconds that runs took, by variant: seeds of one variant take about the same."""

    def __init__(self, done: Iterable[Standing] = ()) -> None:
        self._seconds: dict[str, list[float]] = {}
        for one in done:
            if one.state == "finished":
                self.add(one.run.cell.variant, one.seconds)

    def add(self, variant: str, seconds: float) -> None:
        """Note what one whole run took."""
        self._seconds.setdefault(variant, []).append(seconds)

    def left_seconds(self, left: Iterable[tuple[str, float]], jobs: int) -> float | None:
        """Return how long the runs that are left will take; None where none is done yet.

        left: (variant, the share of it that is still to be done). jobs: runs at once.
        """
        if not self._seconds:
            return None
        of_all = fmean(fmean(one) for one in self._seconds.values())
        total = sum(share * fmean(self._seconds.get(variant, [of_all])) for variant, share in left)
        return total / max(1, jobs)


def duration(seconds: float) -> str:
    """Return a time for people, such as "2 h 10 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60:,} h {minutes % 60} min"


def bytes_of(folder: Path) -> int:
    """Return how many bytes the files of a folder take."""
    return sum((Path(root) / name).lstat().st_size for root, _, names in os.walk(folder) for name in names)
