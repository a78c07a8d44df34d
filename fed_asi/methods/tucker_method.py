"""What methods with a Tucker form share: their counts, as the papers count and as multiplied.

Source of the published counts: Nguyen et al., arXiv 2505.05086, and the tables of its poster.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

from torch import Tensor

from fed_asi.methods.base import Keeper, Method, Ranks, published_forward
from fed_asi.methods.forms import TuckerInput
from fed_asi.methods.sizes import LayerSize, Passes, Traits


@dataclass(frozen=True, slots=True)
class TuckerMethod(Method):
    """A method that keeps a core and one factor for each mode."""

    def thin_gradient(self, layer: Traits) -> bool:
        """Return whether the channel mode always has a factor; where the data decide the ranks, it may be whole."""
        joint = layer.groups == 1 and not layer.transposed
        return joint and bool(self.mode_ranks) and self.mode_ranks[layer.channel_mode] < layer.channels

    def found_ranks(self, x: Tensor, keeper: Keeper) -> Ranks:
        """Return the ranks that the data give, one for each mode of x: (N, C, *S)."""
        kept = cast(TuckerInput, self.keep(x, keeper))
        return tuple(kept.part(kept.forms[0])[0].shape[1:])

    def published_bytes(self, size: LayerSize, ranks: Ranks = (), element_bytes: int = 4) -> int:
        """Return the bytes of core and factors."""
        pairs = list(zip(size.dims, fitted(size, ranks), strict=True))
        return element_bytes * (prod(r for _, r in pairs) + sum(d * r for d, r in pairs))

    def published_flops(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return forward, compression and dW as the papers count them."""
        return published_forward(size) + self.published_overhead(size, ranks) + _published_dw(size, ranks)

    @abstractmethod
    def published_overhead(self, size: LayerSize, ranks: Ranks) -> int:
        """Return the compression as the papers count it."""

    def dw_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return those of dW from the factors."""
        return _pointwise_dw(size, ranks) if size.pointwise else _kernel_dw(size, ranks)

    def keeping(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return one product a mode, and one for the core."""
        return Passes(1 + len(cut_modes(size, ranks)))

    def restoring(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return one product for each mode."""
        return Passes(len(cut_modes(size, ranks)))


def fitted(size: LayerSize, ranks: Ranks) -> Ranks:
    """Return the ranks, each cut to the size of its mode. Raises ValueError for another number of modes."""
    if len(ranks) != len(size.dims):
        raise ValueError(f"{len(ranks)} ranks for an input of {len(size.dims)} modes")
    return tuple(min(r, d) for r, d in zip(ranks, size.dims, strict=True))


def cut_modes(size: LayerSize, ranks: Ranks) -> list[int]:
    """Return the modes whose rank is below their size."""
    return [mode for mode, (d, r) in enumerate(zip(size.dims, fitted(size, ranks), strict=True)) if r < d]


def projection(dims: Sequence[int], ranks: Sequence[int]) -> int:
    """Return the multiply-accumulates of projecting x: dims onto factors of these ranks, mode after mode."""
    total, macs = prod(dims), 0
    for d, rank in zip(dims, ranks, strict=True):
        if rank < d:
            macs += total * rank
            total = total // d * rank
    return macs


def _published_dw(size: LayerSize, ranks: Ranks) -> int:
    batch, channels, *space = fitted(size, ranks)
    grid = prod(size.out[2:])
    to_small_batch = batch * prod(size.out)
    kernel_gradient = size.out[1] * batch * channels * size.taps * grid
    to_all_channels = size.out[1] * size.dims[1] * size.taps * channels
    expanded = _expansion(batch * channels, space, size.dims[2:])
    return to_small_batch + expanded + kernel_gradient + to_all_channels


def _expansion(leading: int, ranks: Sequence[int], dims: Sequence[int]) -> int:
    """MACs of multiplying a core (leading, *ranks) out to (leading, *dims), mode after mode."""
    total, macs = leading * prod(ranks), 0
    for d, rank in zip(dims, ranks, strict=True):
        macs += total * d
        total = total // rank * d
    return macs


def _kernel_dw(size: LayerSize, ranks: Ranks) -> int:
    batch, channels, *space = fitted(size, ranks)
    macs = batch * prod(size.out) if batch < size.dims[0] else 0
    small = [(r, d) for r, d in zip(space, size.dims[2:], strict=True) if r < d]
    whole = prod(d for r, d in zip(space, size.dims[2:], strict=True) if r >= d)
    macs += _expansion(batch * channels * whole, [r for r, _ in small], [d for _, d in small])
    images = size.pixels // size.dims[0] * batch
    weight = size.dense // size.groups
    if channels == size.dims[1] or size.groups > 1 or size.transposed:
        widen = batch * channels * prod(size.dims[1:]) if channels < size.dims[1] else 0
        return macs + widen + weight * images
    return macs + weight // size.dims[1] * channels * (images + size.dims[1])


def _pointwise_dw(size: LayerSize, ranks: Ranks) -> int:
    batch, channels, *space = fitted(size, ranks)
    total, macs = prod(size.out), 0
    for d, grid, rank in zip(size.dims[2:], size.out[2:], space, strict=True):
        if rank < d:
            macs += total * rank
            total = total // grid * rank
    if batch < size.dims[0]:
        macs += total * batch
        total = total // size.dims[0] * batch
    macs += total * channels
    return macs + (size.dense * channels if channels < size.dims[1] else 0)
