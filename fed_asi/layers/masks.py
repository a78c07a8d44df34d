"""One bit an element: where a piecewise linear activation lets the gradient through.

Bit p of byte j stands for element p * (bytes) + j, so that packing is one product with a row of
powers of two and unpacking works on long rows; boolean tensors cost 2 to 5 times more on CPU.
In float32 a bit is unpacked as the exponent of a small positive number, which torch's backward of a
threshold reads as it is: two passes instead of four.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fed_asi.gpus import sent

PLANES = (1, 2, 4, 8, 16, 32, 64, 128)
AT_ONCE = 1 << 16  # elements; packing fewer plane by plane costs calls that take longer than the passes
SMALLEST_NORMAL = 1 << 23  # as float32, of its lowest exponent bit; denormals might be flushed to zero


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
    """Return the bytes of the packed mask of `numel` elements."""
    return -(-numel // 8)


def pack(open_: Tensor) -> Tensor:
    """Return the bits of open_: (n,), zeros and ones in a float dtype, as uint8: (ceil(n / 8),)."""
    if open_.dtype not in (torch.float32, torch.float64):
        open_ = open_.float()
    rest = -open_.numel() % 8
    if rest:
        open_ = torch.nn.functional.pad(open_, (0, rest))
    return (_planes(open_.dtype, open_.device) @ open_.view(8, -1)).view(-1).to(torch.uint8)


def pack_open(y: Tensor, is_open: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `pack(is_open(y))` of y: (n,), of a large one plane after plane, with no second tensor of its size."""
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
    """Return numbers of that size, in the order of `stride`: above 0 where the packed bit is 1, and 0 elsewhere."""
    if dtype != torch.float32:
        return unpack(packed, size.numel(), dtype).as_strided(size, stride)
    planes = packed.to(torch.int32).mul_(SMALLEST_NORMAL) & _exponents(packed.device)
    return planes.view(torch.float32).as_strided(size, stride)
