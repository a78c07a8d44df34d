"""Pixels to what a network reads: float batches of one resolution, normalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

UInt8Images = NDArray[np.uint8]


def to_batch(
    images: UInt8Images, resolution: int, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Return a float32 batch (N, 3, resolution, resolution), normalised as (pixel / 255 - mean) / std.

    images: (N, H, W, 3) uint8. Another size is resized bilinearly, with antialiasing where it shrinks.
    """
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)
    if batch.shape[-2:] != (resolution, resolution):
        shrinks = max(batch.shape[-2:]) > resolution
        batch = F.interpolate(batch, (resolution, resolution), mode="bilinear", antialias=shrinks)
    shape = (1, 3, 1, 1)
    batch = batch.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))
    return batch.contiguous()
