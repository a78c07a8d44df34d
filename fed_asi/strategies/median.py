"""The coordinate-wise median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fed_asi.strategies.base import register
from fed_asi.strategies.by_coordinate import ByCoordinate


@register
@dataclass(frozen=True, slots=True)
class Median(ByCoordinate):
    """Every number becomes the median over the devices that trained it; for an even count, the mean of the middle two.

    With fewer than half of them hostile it lies between honest devices' numbers.
    Source: Yin et al. 2018 (arXiv 1803.01498), definition 1.
    """

    name: ClassVar[str] = "median"

    def middle(self, ascending: Tensor) -> Tensor:
        """Return the medians."""
        last = len(ascending) - 1
        return (ascending[last // 2] + ascending[-(-last // 2)]) / 2.0
