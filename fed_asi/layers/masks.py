"""Masks of one bit per element: where a piecewise linear activation lets the gradient through.

Bit p of byte j stands for element p * (bytes) + j, so that packing is one product with a row of powers of two, and
unpacking works on long rows. Boolean tensors would take 2 to 5 times as long on CPU. In float32, a bit is unpacked as
the exponent of a small positive number, which torch's threshold backward reads directly: two passes instead of four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fed_asi.gpus import sent
from fed_asi.layers.thresholds import AT_ONCE

PLANES = (1, 2, 4, 8, 16, 32, 64, 128)
SMALLEST_NORMAL = 1 << 23  # the lowest exponent bit of a float32; denormals might be flushed to zero


@lru_cache(maxsize=16)
def _planes(dtype: torch.dtype, device: torch.device) -> Tensor:
    return sent(torch.tensor(PLANES, dtype=dtype), device).unsqueeze(0)


@lru_cache(maxsize=16)
def _exponents(device: torch.device) -> Tensor:
    return sent(torch.tensor(PLANES, dtype=torch.int32).mul_(SMALLEST_NORMAL), device).unsqueeze(1)


@lru_cache(maxsize=16)
def _shifts(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device).unsqueeze(1)


def packed_bytes(numel: int) -> int:
    """Return the bytes of a packed mask for `numel` elements."""
    return -(-numel // 8)


def pack(open_: Tensor) -> Tensor:
    """Pack open_: (n,), zeros and ones in a float dtype. Returns uint8: (ceil(n / 8),)."""
    if open_.dtype not in (torch.float32, torch.float64):
        open_ = open_.float()
    rest = -open_.numel() % 8
    if rest:
        open_ = torch.nn.functional.pad(open_, (0, rest))
    return (_planes(open_.dtype, open_.device) @ open_.view(8, -1)).view(-1).to(torch.uint8)


def pack_open(y: Tensor, is_open: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `pack(is_open(y))` for y: (n,); a large y is packed plane by plane, without a temporary of its size."""
    if y.numel() <= AT_ONCE or y.dtype not in (torch.float32, torch.float64):
        return pack(is_open(y))
    total = y.new_zeros(packed_bytes(y.numel()))
    for plane, part in zip(PLANES, torch.split(y, len(total)), strict=False):
        total[: len(part)].add_(is_open(part), alpha=plane)
    return total.to(torch.uint8)


def unpack(packed: Tensor, numel: int, dtype: torch.dtype) -> Tensor:
    """Return the `numel` zeros and ones that `pack` packed, in `dtype`."""
    bits = (packed.unsqueeze(0) >> _shifts(packed.device)).bitwise_and_(1)
    return bits.to(dtype).view(-1)[:numel]


def positive(packed: Tensor, size: torch.Size, stride: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor of that size and stride that is positive where the packed bit is 1, and 0 elsewhere."""
    if dtype != torch.float32:
        return unpack(packed, size.numel(), dtype).as_strided(size, stride)
    planes = packed.to(torch.int32).mul_(SMALLEST_NORMAL) & _exponents(packed.device)
    return planes.view(torch.float32).as_strided(size, stride)
