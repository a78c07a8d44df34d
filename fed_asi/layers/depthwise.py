"""The weight gradient of a depthwise convolution on a small feature map, as two matrix products.

torch's own kernel goes tap by tap through large kernels: 5x5 on 4x4 pixels and 384 channels takes 15 times as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed_asi.gpus import sent
from fed_asi.layers.geometry import Geometry, padded
from fed_asi.layers.thresholds import ADDED_SAMPLES, FEWEST_TAPS, MOST_PAIRS


def fits(x: Tensor, g: Tensor, geometry: Geometry) -> bool:
    """Return whether the matrix products are quicker for x: (N, C, *S) and g: (N, C, *S')."""
    depthwise = geometry.groups == x.shape[1] == g.shape[1] and not geometry.transposed
    many = prod(geometry.kernel) >= FEWEST_TAPS
    return depthwise and many and x.shape[2:].numel() * g.shape[2:].numel() <= MOST_PAIRS


def weight_gradient(x: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Return dW: (C, 1, *K) for an input x: (N, C, *S) and g: (N, C, *S').

    For each channel, all input pixels are multiplied with all output pixels and summed over samples. The result for a
    tap is the sum over the pairs of pixels that this tap connects.
    """
    x = padded(x.to(g.dtype), geometry)
    sizes, channels = (tuple(x.shape[2:]), tuple(g.shape[2:])), x.shape[1]
    if g.device.type == "cpu":
        joined = torch.from_numpy(_joined(geometry, *sizes)).to(g.dtype)
    else:
        joined = _joined_there(geometry, *sizes, g.device, g.dtype)
    taps = joined @ _pairs(x, g)  # the thin matrix on the left
    return taps.mT.reshape(channels, 1, *geometry.kernel)


def _pairs(x: Tensor, g: Tensor) -> Tensor:
    """Return the products of every input pixel with every output pixel, summed over samples: (pairs, C)."""
    if len(x) > ADDED_SAMPLES:
        found = torch.bmm(_by_channel(x).mT, _by_channel(g))  # (C, S, S')
        return found.flatten(1).mT
    left, right = (one.movedim(1, -1).flatten(1, -2) for one in (x, g))
    total = left[0].unsqueeze(1) * right[0]
    for one, other in zip(left[1:], right[1:], strict=True):
        total.addcmul_(one.unsqueeze(1), other)
    return total.flatten(0, 1)


def _by_channel(x: Tensor) -> Tensor:
    """Return x: (N, C, *S) as (C, N, pixels), with the pixels last in memory."""
    last = x.movedim(1, -1)
    if last.is_contiguous():
        return last.reshape(-1, x.shape[1]).mT.contiguous().view(x.shape[1], x.shape[0], -1)
    return x.transpose(0, 1).flatten(2)


@lru_cache(maxsize=64)
def _joined(geometry: Geometry, size: tuple[int, ...], out: tuple[int, ...]) -> NDArray[np.float32]:
    """Return (taps, input pixels * output pixels), 1 where a tap connects the two pixels, 0 elsewhere.

    A numpy array, because a cached tensor would belong to the mode it was made in, such as inference mode.
    """
    found = np.zeros((*size, *out, *geometry.kernel), np.float32)
    for position in product(*(range(n) for n in (*out, *geometry.kernel))):
        pixel = _read(geometry, position[: len(out)], position[len(out) :])
        if all(0 <= p < n for p, n in zip(pixel, size, strict=True)):
            found[(*pixel, *position)] = 1
    return np.ascontiguousarray(found.reshape(-1, prod(geometry.kernel)).T)


@lru_cache(maxsize=64)
def _joined_there(
    geometry: Geometry, size: tuple[int, ...], out: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Return the array of `_joined` as a tensor on a device, cached there for later steps."""
    with torch.inference_mode(False):  # usable in training steps even if first needed in inference
        return sent(torch.from_numpy(_joined(geometry, size, out)).to(dtype), device)


def _read(geometry: Geometry, pixel: Sequence[int], tap: Sequence[int]) -> tuple[int, ...]:
    """Return the input pixel that an output pixel reads at a tap."""
    steps = zip(geometry.stride, pixel, geometry.dilation, tap, geometry.padding, strict=True)
    return tuple(stride * p + dilation * t - padding for stride, p, dilation, t, padding in steps)
