"""Pooling, always exact: maxima keep their place in the window in 1 to 8 bits, means keep nothing."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.layers.base import register
from fed_asi.layers.bits import pack_levels, packed_bytes, unpack_levels, width_for
from fed_asi.layers.weightless import WeightlessKind, applied, needs_gradient
from fed_asi.torch_private import adaptive_avg_pool2d_backward

Pair = tuple[int, int]


def _pair(value: Any) -> Pair:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


class _Windows:
    """The windows of a max pool: flat input index <-> place in the window, for x: (..., H, W)."""

    def __init__(self, module: nn.MaxPool2d, width: int) -> None:
        self.kernel = _pair(module.kernel_size)
        self.stride = _pair(module.kernel_size if module.stride is None else module.stride)
        self.padding, self.dilation = _pair(module.padding), _pair(module.dilation)
        self.width = width
        self.bits = width_for(prod(self.kernel))

    def _corner(self, axis: int, steps: int, device: torch.device) -> Tensor:
        return torch.arange(steps, device=device) * self.stride[axis] - self.padding[axis]

    def place(self, index: Tensor) -> Tensor:
        """Return the place in its window of each maximum. index: (..., H', W'), indices into the flat input."""
        top = self._corner(0, index.shape[-2], index.device)[:, None]
        left = self._corner(1, index.shape[-1], index.device)
        row = (index // self.width - top) // self.dilation[0]
        return row * self.kernel[1] + (index % self.width - left) // self.dilation[1]

    def index(self, place: Tensor) -> Tensor:
        """Return the flat input index of each maximum. place: (..., H', W'), places in the windows."""
        place = place.long()
        top = self._corner(0, place.shape[-2], place.device)[:, None]
        left = self._corner(1, place.shape[-1], place.device)
        row = top + place // self.kernel[1] * self.dilation[0]
        return row * self.width + left + place % self.kernel[1] * self.dilation[1]


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.MaxPool2d) -> Tensor:
        y, index = F.max_pool2d(
            x, module.kernel_size, module.stride, module.padding, module.dilation,
            ceil_mode=module.ceil_mode, return_indices=True,
        )  # fmt: skip
        ctx.windows, ctx.shape, ctx.out = _Windows(module, x.shape[-1]), x.shape, y.shape
        ctx.save_for_backward(pack_levels(ctx.windows.place(index).reshape(-1), ctx.windows.bits))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (packed,) = ctx.saved_tensors
        place = unpack_levels(packed, prod(ctx.out), ctx.windows.bits).view(ctx.out)
        dx = grad.new_zeros((*ctx.shape[:-2], prod(ctx.shape[-2:])))
        dx.scatter_add_(-1, ctx.windows.index(place).flatten(-2), grad.flatten(-2))
        return dx.view(ctx.shape), None


class _GlobalMean(torch.autograd.Function):
    """The mean over H and W; its gradient is an expanded view."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return x.mean((-2, -1), keepdim=True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        mean: Tensor = grad / prod(ctx.shape[-2:])
        return mean.expand(ctx.shape)


class _Mean(torch.autograd.Function):
    """Average pooling of any kind; torch computes the gradient from a stand-in with the shape of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: nn.AvgPool2d | nn.AdaptiveAvgPool2d) -> Tensor:
        ctx.shape, ctx.module = x.shape, module
        if isinstance(module, nn.AvgPool2d):
            return nn.AvgPool2d.forward(module, x)
        return nn.AdaptiveAvgPool2d.forward(module, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        module, stand_in = ctx.module, grad.new_empty(1).expand(ctx.shape)
        if isinstance(module, nn.AvgPool2d):
            stride = module.kernel_size if module.stride is None else module.stride
            windows = (_pair(module.kernel_size), _pair(stride), _pair(module.padding))
            rules = (module.ceil_mode, module.count_include_pad, module.divisor_override)
            dx: Tensor = torch.ops.aten.avg_pool2d_backward(grad, stand_in, *windows, *rules)
        else:
            dx = adaptive_avg_pool2d_backward(grad, stand_in)
        return dx, None


class CompressedMaxPool2d(nn.MaxPool2d):
    """MaxPool2d that keeps the place of each maximum in its window, in the fewest bits."""

    def forward(self, input: Tensor) -> Any:
        """Return the pooled input, (..., C, H', W')."""
        if not needs_gradient(input):
            return super().forward(input)
        return applied(_MaxPool, input, self)


class CompressedAvgPool2d(nn.AvgPool2d):
    """AvgPool2d that keeps nothing."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled input, (..., C, H', W')."""
        if not needs_gradient(input):
            return super().forward(input)
        return applied(_Mean, input, self)


class CompressedAdaptiveAvgPool2d(nn.AdaptiveAvgPool2d):
    """AdaptiveAvgPool2d that keeps nothing."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the pooled input, (..., C, H', W')."""
        if not needs_gradient(input):
            return super().forward(input)
        if self.output_size in (1, (1, 1)):
            return applied(_GlobalMean, input)
        return applied(_Mean, input, self)


class _MaxPoolKind(WeightlessKind):
    original = nn.MaxPool2d
    compressed = CompressedMaxPool2d

    def reason(self, module: nn.Module) -> str | None:
        pool = cast(nn.MaxPool2d, module)
        if pool.return_indices:
            return "a pooling that returns its indices keeps them as they are"
        if prod(_pair(pool.kernel_size)) > 2**15:
            return "its window has more than 32768 places, so torch's own indices stay"
        return None

    def floor_bytes(self, module: nn.Module, shape: Sequence[int], _dtype: torch.dtype) -> int:
        pool = cast(nn.MaxPool2d, module)
        out = nn.MaxPool2d.forward(pool, torch.empty(*shape, device="meta"))
        return packed_bytes(out.numel(), width_for(prod(_pair(pool.kernel_size))))


class _AvgPoolKind(WeightlessKind):
    original = nn.AvgPool2d
    compressed = CompressedAvgPool2d


class _AdaptiveAvgPoolKind(WeightlessKind):
    original = nn.AdaptiveAvgPool2d
    compressed = CompressedAdaptiveAvgPool2d


for _kind in (_MaxPoolKind, _AvgPoolKind, _AdaptiveAvgPoolKind):
    register(_kind())
