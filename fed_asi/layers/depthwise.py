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

MOST_PAIRS = 1024  # pairs of input and output pixels; with more, the products take as long as they save


def fits(x: Tensor, g: Tensor, geometry: Geometry) -> bool:
    """Return whether the matrix products are quicker for x: (N, C, *S) and g: (N, C, *S')."""
    depthwise = geometry.groups == x.shape[1] == g.shape[1] and not geometry.transposed
    return depthwise and x.shape[2:].numel() * g.shape[2:].numel() <= MOST_PAIRS


def weight_gradient(x: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Return dW: (C, 1, *K) for an input x: (N, C, *S) and g: (N, C, *S').

    For each channel, all input pixels are multiplied with all output pixels and summed over samples. The result for a
    tap is the sum over the pairs of pixels that this tap connects.
    """
    x = padded(x.to(g.dtype), geometry)
    images = x.contiguous().flatten(2), g.contiguous().flatten(2)
    pairs = images[0].permute(1, 2, 0) @ images[1].transpose(0, 1)
    sizes = tuple(x.shape[2:]), tuple(g.shape[2:])
    if pairs.device.type == "cpu":
        joined = torch.from_numpy(_joined(geometry, *sizes)).to(pairs.dtype)
    else:
        joined = _joined_there(geometry, *sizes, pairs.device, pairs.dtype)
    return (pairs.flatten(1) @ joined).view(x.shape[1], 1, *geometry.kernel)


@lru_cache(maxsize=64)
def _joined(geometry: Geometry, size: tuple[int, ...], out: tuple[int, ...]) -> NDArray[np.float32]:
    """Return (input pixels * output pixels, taps), 1 where a tap connects the two pixels, 0 elsewhere.

    A numpy array, because a cached tensor would belong to the mode it was made in, such as inference mode.
    """
    found = np.zeros((*size, *out, *geometry.kernel), np.float32)
    for position in product(*(range(n) for n in (*out, *geometry.kernel))):
        pixel = _read(geometry, position[: len(out)], position[len(out) :])
        if all(0 <= p < n for p, n in zip(pixel, size, strict=True)):
            found[(*pixel, *position)] = 1
    return found.reshape(-1, prod(geometry.kernel))


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
