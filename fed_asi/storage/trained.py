"""Trained weights as a device holds them in RAM where half precision has to do: every move is rounded at random.

A step is often smaller than the distance between two numbers of float16. Rounded to the nearest one it would be lost,
every time. Rounded up or down at random, with the odds that make the mean exact, it counts in the long run (stochastic
rounding; Gupta et al., arXiv 1502.02551). Numbers of float16 stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fed_asi.layers.slices import Slice

EXPONENT = 0x7F800000  # these bits of a float32 number alone are the power of two at or below it
DISTANCE = 2.0**-10  # between neighbours in float16, relative to that power of two
SMALLEST = 2.0**-24  # between neighbours near zero


class HalfWeights:
    """Rounds the trained part of weights to float16 after each move. seed: of the draws, which are made on the CPU."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def store_(self, parameter: Tensor, part: Slice | None = None) -> None:
        """Round a parameter, or the part of it that is trained, in place."""
        if part is None:
            parameter.copy_(self._rounded(parameter.detach()))
        else:
            part.load_(parameter, self._rounded(part.of(parameter.detach())))

    def _rounded(self, x: Tensor) -> Tensor:
        """Return float32 numbers rounded; beyond the range of float16 they are infinite or NaN."""
        power = (x.view(torch.int32) & EXPONENT).view(torch.float32)
        distance = power.mul_(DISTANCE).clamp_min_(SMALLEST)
        steps = x / distance
        below = steps.floor()
        draws = torch.rand(x.shape, generator=self._generator).to(x.device)
        below += draws < steps - below  # the difference is exact, so numbers of float16 never move
        return (below * distance).half().float()
