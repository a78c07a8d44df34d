"""The order in which a round's jobs begin, so that all workers finish at about the same time.

It affects nothing but time: replies are sorted before anything is summed or recorded.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from itertools import combinations
from typing import TypeVar

Job = TypeVar("Job")


SEARCHED = 32  # jobs; with more of them, the largest first is as good


class Costs:
    """Seconds an image takes by kind of job, learned from the jobs that are done."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[float, int]] = {}

    def add(self, kind: Hashable, seconds: float, images: int) -> None:
        """Note what one job took."""
        before, counted = self._seen.get(kind, (0.0, 0))
        self._seen[kind] = (before + seconds, counted + images)

    def estimate(self, kind: Hashable, images: int) -> float:
        """Return what a job will take: seconds, or just its images where nothing is known yet."""
        seconds, counted = self._seen.get(kind, (0.0, 0))
        if not counted:
            seconds = sum(seen[0] for seen in self._seen.values())
            counted = sum(seen[1] for seen in self._seen.values())
        return images * (seconds / counted if counted else 1.0)


def in_order(jobs: Sequence[Job], cost: Callable[[Job], float], workers: int) -> list[Job]:
    """Return the jobs in the order to begin them: the largest first, then swapped while that ends earlier."""
    order = sorted(jobs, key=lambda job: -cost(job))
    if not 1 < workers < len(order) <= SEARCHED:
        return order
    costs = [cost(job) for job in order]
    best, found = makespan(costs, workers), True
    while found:
        found = False
        for i, j in combinations(range(len(order)), 2):
            costs[i], costs[j] = costs[j], costs[i]
            ends = makespan(costs, workers)
            if ends < best * (1.0 - 1e-9):
                order[i], order[j] = order[j], order[i]
                best, found = ends, True
            else:
                costs[i], costs[j] = costs[j], costs[i]
    return order


def makespan(costs: Sequence[float], workers: int) -> float:
    """Return when the last of these jobs ends, each begun in turn by the worker that is free first."""
    free = [0.0] * workers
    for cost in costs:
        heapq.heappush(free, heapq.heappop(free) + cost)
    return max(free)
