"""Small unsigned integers packed into bytes."""

from __future__ import annotations

import torch
from torch import Tensor

WIDTHS = (1, 2, 4, 8)


def width_for(levels: int) -> int:
    """Return the smallest width, of 1, 2, 4, 8 and 16 bits, that can encode `levels` values (at most 32768)."""
    return next((width for width in WIDTHS if 2**width >= levels), 16)


def packed_bytes(numel: int, width: int) -> int:
    """Return the bytes of `numel` packed integers of `width` bits."""
    return -(-numel * width // 8)


def pack_levels(levels: Tensor, width: int) -> Tensor:
    """Pack levels: (n,), integers below 2**width. Returns uint8: (packed_bytes(n, width),); int16 at 16 bits."""
    if width == 16:
        return levels.to(torch.int16)
    levels = levels.to(torch.uint8)
    if width == 8:
        return levels
    per_byte = 8 // width
    rest = -levels.numel() % per_byte
    parts = torch.nn.functional.pad(levels, (0, rest)).view(-1, per_byte)
    packed = parts[:, 0].clone()
    for i in range(1, per_byte):
        packed |= parts[:, i] << (i * width)
    return packed


def unpack_levels(packed: Tensor, numel: int, width: int) -> Tensor:
    """Return the `numel` integers that `pack_levels` packed: uint8, or int16 at 16 bits."""
    if width >= 8:
        return packed
    shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=packed.device)
    return (packed.unsqueeze(1) >> shifts).bitwise_and_(2**width - 1).view(-1)[:numel]
