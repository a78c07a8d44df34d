"""The weight gradient of a depthwise convolution on a small map, as two matrix products.

torch's own kernel takes a large one tap by tap: of 5x5 on 4x4 pixels and 384 channels it needs 15 times as long.
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

MOST_PAIRS = 1024  # of an input pixel and an output pixel: with more, the products cost what they spare


def fits(x: Tensor, g: Tensor, geometry: Geometry) -> bool:
    """Return whether this is the quick way for x: (N, C, *S) and g: (N, C, *S')."""
    depthwise = geometry.groups == x.shape[1] == g.shape[1] and not geometry.transposed
    return depthwise and x.shape[2:].numel() * g.shape[2:].numel() <= MOST_PAIRS


def weight_gradient(x: Tensor, g: Tensor, geometry: Geometry) -> Tensor:
    """Return dW: (C, 1, *K) for an input x: (N, C, *S) and g: (N, C, *S').

    For every channel the products of all input pixels with all output pixels, summed over samples, and then over
    the pairs of pixels that a tap joins.
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
    """Return (pixels of the input * pixels of the output, taps), 1 where a tap joins the two, 0 elsewhere.

    No tensor: one that is remembered would belong to the mode that it was made in, such as inference.
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
    """Return what `_joined` found, on a device and kept there for the steps to come."""
    with torch.inference_mode(False):  # for steps, whoever asks first
        return sent(torch.from_numpy(_joined(geometry, size, out)).to(dtype), device)


def _read(geometry: Geometry, pixel: Sequence[int], tap: Sequence[int]) -> tuple[int, ...]:
    """Return the input pixel that an output pixel reads at a tap."""
    steps = zip(geometry.stride, pixel, geometry.dilation, tap, geometry.padding, strict=True)
    return tuple(stride * p + dilation * t - padding for stride, p, dilation, t, padding in steps)
