"""The gradient filter: gradients computed from averages of x and dY over patches of the output grid.

dW = sum over patches of (sum of dY) x (mean of x), the same for every tap of the kernel. dX = W summed over its
taps, times the mean of dY, spread evenly over the input pixels of the patch. Both are approximate.
Source: Yang et al., arXiv 2301.00330, section 3; strides count every output once, borders are not padded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from fed_asi.layers.base import LayerState
from fed_asi.layers.convolution import BACKWARD, Convolution, register_gradients
from fed_asi.layers.geometry import Geometry
from fed_asi.layers.gradient import WeightGradient
from fed_asi.layers.operation import Operation
from fed_asi.methods import GradientFilter, Method
from fed_asi.methods.forms import Kept, Whole

_POOL: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


def patches(size: tuple[int, ...], patch: int) -> tuple[int, ...]:
    """Return how many patches cover an output grid of `size`."""
    return tuple(-(-n // patch) for n in size)


@dataclass(frozen=True, slots=True)
class FilteredConvolution(Convolution):
    """A convolution with an exact forward; its gradients are computed from patch averages."""

    patch: int = 2
    grid: tuple[int, ...] = ()

    def keep(self, x: Tensor, method: Method, state: LayerState) -> Kept:
        """Return the patch means of x."""
        return Whole((_POOL[x.dim() - 2](x, patches(self.grid, self.patch)),))

    def weight_gradient(self, kept: Kept, g: Tensor, weight: Tensor) -> Tensor:
        """Return the approximate dW, the same for all taps."""
        summed = self._patch_means(g) * float(self.patch ** (g.dim() - 2))
        found = self._pointwise(summed, kept.restore().to(g.dtype), self._taps(weight), 1)
        return found.expand_as(weight).contiguous()

    def gradient(self, kept: Kept, g: Tensor, weight: Tensor, *, thin: bool, own: bool) -> WeightGradient:
        """Return dW, always whole: it is no product of x and g."""
        return Operation.gradient(self, kept, g, weight, thin=thin, own=own)

    def input_gradient(self, g: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return the approximate dX."""
        means = self._patch_means(g, self._outputs_in_patches(g))
        small = means.new_empty(1).expand(shape[0], shape[1], *means.shape[2:])
        found = self._pointwise(means, small, self._taps(weight), 0)
        return F.interpolate(found, size=shape[2:], mode="nearest") / prod(self.geometry.stride)

    def _patch_means(self, g: Tensor, filled: Tensor | None = None) -> Tensor:
        """Return sums over patches divided by the full patch size or, given `filled`, by the filled part of it."""
        missing = [-n % self.patch for n in g.shape[2:]]
        g = F.pad(g, [amount for n in reversed(missing) for amount in (0, n)])
        pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[g.dim() - 2]
        means = pool(g, self.patch)
        return means if filled is None else means / filled

    def _outputs_in_patches(self, g: Tensor) -> Tensor:
        return self._patch_means(g.new_ones(1, 1, *g.shape[2:]))

    def _taps(self, weight: Tensor) -> Tensor:
        return weight.flatten(2).sum(2).view(*weight.shape[:2], *[1] * (weight.dim() - 2))

    def _pointwise(self, g: Tensor, x: Tensor, weight: Tensor, which: int) -> Tensor:
        ones = (1,) * (g.dim() - 2)
        zeros = (0,) * (g.dim() - 2)
        mask = [which == 0, which == 1, False]
        found: Tensor = BACKWARD(
            g, x, weight, None, ones, zeros, ones, False, zeros, self.geometry.groups, mask
        )[which]
        return found


def _filtered(geometry: Geometry, method: Method, size: tuple[int, ...]) -> Convolution:
    return FilteredConvolution(geometry, patch=cast(GradientFilter, method).patch, grid=size)


register_gradients(GradientFilter, _filtered)
