"""Krum and multi-Krum: keep the updates that are closest to others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fed_asi.strategies.aggregate import Update, Weights
from fed_asi.strategies.base import Combined, Conditions, Round, State, Strategy, register
from fed_asi.strategies.places import by_cell, cells_of, whole_of


@register
@dataclass(frozen=True, slots=True)
class Krum(Strategy):
    """The weighted mean, tensor by tensor, of the `keep` updates with the lowest scores; 1 is Krum, more is multi-Krum.

    A score is the sum of the squared distances to the n - hostile - 2 nearest other updates. The squared distance of
    two updates is the mean squared difference of the numbers that both trained; for whole updates this is the usual
    distance up to a constant. Updates with nothing in common are not neighbours. Among equal scores the lower
    partition_id is kept. A tensor that none of the kept updates trained does not change.
    Source: Blanchard et al. 2017, "Machine Learning with Adversaries", section 4.
    """

    name: ClassVar[str] = "krum"
    hostile: Annotated[int, Field(ge=0)] = 1
    keep: Annotated[int, Field(ge=1)] = 1

    def problems(self, run: Conditions) -> Iterator[str]:
        """Yield also that a cohort is too small for that many hostile devices, or to keep that many."""
        needed = 2 * self.hostile + 3
        if run.cohort < needed:
            yield (
                f"aggregate.hostile: {self.hostile} of {run.cohort} devices in a round, and Krum needs {needed} of "
                "them; lower it, or raise the cohort"
            )
        elif self.keep > run.cohort - self.hostile:
            honest = run.cohort - self.hostile
            yield f"aggregate.keep: {self.keep}, but {honest} of {run.cohort} devices in a round are not hostile"

    def combine(self, given: Round, state: State) -> Combined:
        """Return the mean of the kept updates; there is no state."""
        kept = replace(given, updates=tuple(self._kept(given)))
        return Combined(kept.means(), state, tuple(self._too_few(len(given.updates))))

    def _kept(self, given: Round) -> list[Update]:
        updates = given.updates
        found = scores(distances(updates, given.tensors), self.hostile)
        order = sorted(range(len(updates)), key=lambda i: (found[i], updates[i].partition_id))
        return [updates[i] for i in sorted(order[: self.keep])]

    def _too_few(self, count: int) -> Iterator[str]:
        needed = 2 * self.hostile + 3
        if 0 < count < needed:
            yield f"{count} updates came, and Krum needs {needed} to hold against {self.hostile} hostile"


def distances(updates: tuple[Update, ...], tensors: Weights) -> Tensor:
    """Return the squared distances between updates, (n, n) float64; infinite where they share no number."""
    found = torch.full((len(updates), len(updates)), inf, dtype=torch.float64)
    for i, one in enumerate(updates):
        for j, other in enumerate(updates[:i]):
            apart = [_apart(one, other, n, tensors[n]) for n in one.tensors if n in other.tensors]
            count = sum(numbers for _, numbers in apart)
            if count:
                found[i, j] = found[j, i] = sum(square for square, _ in apart) / count
    return found


def _apart(one: Update, other: Update, name: str, tensor: Tensor) -> tuple[float, int]:
    """Return the squared distance of two updates of a tensor, over the numbers that both trained, and their count."""
    if name in one.slices or name in other.slices:
        both = cells_of(one.slices.get(name), tensor) & cells_of(other.slices.get(name), tensor)
        difference = by_cell(whole_of(one, name, tensor) - whole_of(other, name, tensor))[both]
    else:
        difference = one.tensors[name].to(torch.float64) - other.tensors[name].to(torch.float64)
    return float(difference.square().sum()), difference.numel()


def scores(apart: Tensor, hostile: int) -> list[float]:
    """Return the sum of each update's distances to its n - hostile - 2 nearest others (at least one)."""
    n = len(apart)
    nearest = max(1, n - hostile - 2)
    return [float(apart[i, torch.arange(n) != i].sort().values[:nearest].sum()) for i in range(n)]
