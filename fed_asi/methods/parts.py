"""A batch split into independent micro-batches side by side."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def side_by_side(samples: int, size: int | None) -> Iterator[tuple[int, int]]:
    """Yield (m, b): m micro-batches of b samples side by side, then the remainder, if any, as (1, rest)."""
    if size is None or samples <= size:
        yield 1, samples
        return
    yield samples // size, size
    if samples % size:
        yield 1, samples % size


def split(x: Tensor, size: int | None) -> Iterator[Tensor]:
    """Yield x: (N, ...) as views (m, b, ...), one for the full micro-batches, one for the rest."""
    first = 0
    for m, b in side_by_side(x.shape[0], size):
        yield x[first : first + m * b].view(m, b, *x.shape[1:])
        first += m * b


def computing(x: Tensor) -> Tensor:
    """Return x in a dtype for which QR exists: float32 for half precisions."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
