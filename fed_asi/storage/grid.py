"""The number grids of eight bits: one for each activation tensor, one for each row of a weight.

A real number is stored as an integer: real = scale * (stored - zero), with stored in -128 to 127. Tensors here hold
stored - zero, so that zero is 0 and padding needs no care. Everything is computed in float64 from integers and
scales, and each result is rounded once, so the grids are the same to the bit on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

LEVELS: Final = 255  # steps between the ends of 8 bits
MOST_WEIGHT: Final = 127  # for weights, whose grid is symmetric: -128 is not used
MOST_BIAS: Final = 2**30  # for a bias, in steps of its 32-bit accumulator


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers from scale * low to scale * high, `scale` apart; 0 is one of them."""

    scale: float
    low: int
    high: int

    @property
    def zero(self) -> int:
        """The zero point: the stored value of 0."""
        return -128 - self.low

    @property
    def most(self) -> int:
        """The largest integer, by magnitude."""
        return max(-self.low, self.high)


def grid_of(low: float, high: float) -> Grid:
    """Return the grid for numbers from low to high; its scale is a float32.

    0 is one of its numbers. An empty range counts as 0 to 1.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = ((high - low) or 1.0) / LEVELS
    scale = torch.tensor(scale, dtype=torch.float32).item()
    first = max(-LEVELS, min(0, round(low / scale)))
    return Grid(scale, first, first + LEVELS)


def row_scales(weight: Tensor, bias: Tensor, input_scale: float) -> Tensor:
    """Return the scale of each row of a weight, (rows,) float64 that float32 holds: its largest number is 127 steps.

    Larger where the bias would not go into 30 bits of steps as wide as input_scale times it. bias: (rows,).
    """
    largest = weight.detach().double().flatten(1).abs().amax(1) / MOST_WEIGHT
    least = bias.detach().double().abs() / (MOST_BIAS * input_scale)
    scales = torch.maximum(largest, least).float().double()
    return torch.where(scales > 0, scales, torch.ones_like(scales))


def rounded_rows(weight: Tensor, scales: Tensor) -> Tensor:
    """Return a weight in steps of its rows' scales, int8; halves go to the even number."""
    steps = weight.detach().double() / scales.view(-1, *(1 for _ in weight.shape[1:]))
    return steps.round().clamp(-MOST_WEIGHT, MOST_WEIGHT).to(torch.int8)
