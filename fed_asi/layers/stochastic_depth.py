"""torchvision's StochasticDepth, drawn from the layer's own stream instead of the global random state.

Imported only when a network contains one (`register_late`), so that torchvision is not imported without need.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops.stochastic_depth import StochasticDepth

from fed_asi.gpus import sent
from fed_asi.layers.base import register, state_of
from fed_asi.layers.draws import DrawState, draws_for
from fed_asi.layers.weightless import WeightlessKind


class CompressedStochasticDepth(StochasticDepth):  # type: ignore[misc]
    """Drops whole samples (mode "row") or whole micro-batches (mode "batch"); keeps one factor per sample."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with a fraction p of its samples, drawn at random, set to zero and the others scaled."""
        state = state_of(self)
        if not self.training or self.p == 0 or not isinstance(state, DrawState):
            return input
        draws = draws_for(state, "stochastic depth", input)
        samples = input.shape[0]
        together = 1 if self.mode == "row" else min(state.micro_batch or samples, samples)
        kept = torch.rand(-(-samples // together), generator=draws) >= self.p
        factors = sent(kept.repeat_interleave(together)[:samples], input.device).to(input.dtype)
        if self.p < 1:
            factors = factors / (1 - self.p)
        scaled: Tensor = input * factors.view(-1, *[1] * (input.dim() - 1))
        return scaled


class _StochasticDepthKind(WeightlessKind):
    original = StochasticDepth
    compressed = CompressedStochasticDepth
    state = DrawState

    def floor_bytes(self, module: nn.Module, shape: Sequence[int], dtype: torch.dtype) -> int:
        return int(shape[0]) * dtype.itemsize if module.training and module.p else 0


register(_StochasticDepthKind())
