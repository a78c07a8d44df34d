"""The coordinate-wise trimmed mean."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fed_asi.strategies.base import Conditions, Strategy, register
from fed_asi.strategies.by_coordinate import ByCoordinate


@register
@dataclass(frozen=True, slots=True)
class TrimmedMean(ByCoordinate):
    """Every number becomes the mean over devices without the largest and the smallest share `beta` of values.

    Of n devices that trained it, int(beta * n) are left out at each end; if no more than that are hostile, it lies
    between honest devices' numbers.
    Source: Yin et al. 2018 (arXiv 1803.01498), definition 2.
    """

    name: ClassVar[str] = "trimmed-mean"
    beta: Annotated[float, Field(ge=0, lt=0.5)] = 0.2

    def problems(self, run: Conditions) -> Iterator[str]:
        """Yield also that no device would be left out."""
        yield from Strategy.problems(self, run)
        if int(self.beta * run.cohort) == 0:
            yield (
                f"aggregate.beta: {self.beta:g} of {run.cohort} devices in a round leaves none out; raise it, or the "
                "cohort"
            )

    def middle(self, ascending: Tensor) -> Tensor:
        """Return the means of the remaining values."""
        cut = int(self.beta * len(ascending))
        return ascending[cut : len(ascending) - cut].mean(0)
