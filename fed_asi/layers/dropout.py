"""Dropout that keeps one bit per element and draws its mask from the layer's own stream.

torch's dropout draws from the global random state, so its masks would depend on the process that trains.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from fed_asi.gpus import sent
from fed_asi.layers import masks
from fed_asi.layers.base import register, state_of
from fed_asi.layers.draws import DrawState, draws_for
from fed_asi.layers.weightless import WeightlessKind, applied


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.shape, ctx.scale = x.shape, scale
        ctx.save_for_backward(masks.pack(kept.reshape(-1)))
        return x * kept.mul(scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (packed,) = ctx.saved_tensors
        kept = masks.unpack(packed, prod(ctx.shape), grad.dtype).view(ctx.shape)
        return grad * kept.mul_(ctx.scale), None, None


class CompressedDropout(nn.Dropout):
    """Dropout with its own seeded stream; it keeps one bit per element."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input with a fraction p of its elements, drawn at random, set to zero and the others scaled."""
        state = state_of(self)
        if not self.training or self.p == 0 or not isinstance(state, DrawState):
            return input
        draws = draws_for(state, "dropout", input)
        kept = sent(torch.rand(input.shape, generator=draws) >= self.p, input.device).to(input.dtype)
        scale = 0.0 if self.p == 1 else 1 / (1 - self.p)
        dropped = applied(_Dropout, input, kept, scale)
        return input.copy_(dropped) if self.inplace else dropped


class _DropoutKind(WeightlessKind):
    original = nn.Dropout
    compressed = CompressedDropout
    state = DrawState

    def floor_bytes(self, module: nn.Module, shape: Sequence[int], _dtype: torch.dtype) -> int:
        return masks.packed_bytes(prod(shape)) if module.training and module.p else 0


register(_DropoutKind())
