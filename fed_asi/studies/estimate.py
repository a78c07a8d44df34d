"""An estimate of the time and disk space that a study needs, from its finished runs; unknown before the first one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from fed_asi.studies.standing import Standing

ASSUMED_SECONDS = 60.0  # of a run, for the estimate that a very large grid needs before it starts
MANY_RUNS, MANY_HOURS = 200, 12.0  # beyond these the user must confirm


class Clock:
    """Seconds that runs took, by variant, as different seeds of a variant take about the same time."""

    def __init__(self, done: Iterable[Standing] = ()) -> None:
        self._seconds: dict[str, list[float]] = {}
        for one in done:
            if one.state == "finished":
                self.add(one.run.cell.variant, one.seconds)

    def add(self, variant: str, seconds: float) -> None:
        """Add the seconds of one whole run."""
        self._seconds.setdefault(variant, []).append(seconds)

    def left_seconds(self, left: Iterable[tuple[str, float]], jobs: int) -> float | None:
        """Return the seconds that the remaining runs will take; None if no run is finished yet.

        left: (variant, share of the run still to do). jobs: runs at once.
        """
        if not self._seconds:
            return None
        of_all = fmean(fmean(one) for one in self._seconds.values())
        total = sum(share * fmean(self._seconds.get(variant, [of_all])) for variant, share in left)
        return total / max(1, jobs)


def duration(seconds: float) -> str:
    """Return seconds as text for people, such as "2 h 10 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60:,} h {minutes % 60} min"


def bytes_of(folder: Path) -> int:
    """Return the total bytes of the files in a folder."""
    return sum((Path(root) / name).lstat().st_size for root, _, names in os.walk(folder) for name in names)
