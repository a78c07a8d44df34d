"""Bytes and multiply-accumulates (MACs) of one layer, from sizes alone.

Two conventions, never mixed. *Published*, as the papers print them: convolutions only, groups ignored, the
forward on the input's grid, dX left out. *Corrected*: what is really multiplied, groups and strides counted.

Source of the published one: Nguyen et al., arXiv 2505.05086, and the tables of its poster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from fed_asi.methods.base import ASI, HOSVD, FixedSubspace, GradientFilter, Method, Quantized, SpatialMean

Ranks = Sequence[int]


_TUCKER = (ASI, HOSVD, FixedSubspace)


_BATCH_ITERATIONS = 2  # of ASI's sequential order, whose batch mode starts anew at every step


_EIGH = 9  # times d^3: the symmetric eigenvalue problem of a d x d Gram matrix, with vectors


@dataclass(frozen=True, slots=True)
class LayerSize:
    """Sizes of one call of a convolution or linear layer.

    dims: of the input, (B, C, *S). out: of the output, (B, C', *S'). kernel: () for a linear layer.
    """

    dims: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return prod(self.kernel)

    @property
    def dense(self) -> int:
        """K^2 C C': the weight's elements if there were no groups."""
        return self.taps * self.dims[1] * self.out[1]

    @property
    def pixels(self) -> int:
        """B H' W' of the grid the kernel is laid on: the output's, or a transposed convolution's input's."""
        return prod(self.dims[:1] + self.dims[2:]) if self.transposed else prod(self.out[:1] + self.out[2:])

    @property
    def pointwise(self) -> bool:
        """Whether the layer is one matrix for every pixel."""
        return self.taps == 1 and self.groups == 1 and not self.transposed


def published_bytes(size: LayerSize, method: Method, ranks: Ranks = (), element_bytes: int = 4) -> int:
    """Return the bytes of the kept input, as the papers count them: no masks, no other layers.

    ranks: of the Tucker form, in (B, C, *S) order, for the methods that keep one.
    """
    if not method.trains_weight:
        return 0
    if isinstance(method, _TUCKER):
        pairs = list(zip(size.dims, _fitted(size, ranks), strict=True))
        return element_bytes * (prod(r for _, r in pairs) + sum(d * r for d, r in pairs))
    if isinstance(method, GradientFilter):
        return element_bytes * prod(size.dims[:2]) * prod(-(-n // method.patch) for n in size.out[2:])
    if isinstance(method, SpatialMean):
        return element_bytes * prod(size.dims[:2])
    if isinstance(method, Quantized):
        return size.dims[0] * (-(-prod(size.dims[1:]) * method.bits // 8) + 2 * element_bytes)
    return element_bytes * prod(size.dims)


def published_flops(size: LayerSize, method: Method, ranks: Ranks = ()) -> int:
    """Return forward + dW + compression in the published convention, which says FLOPs for MACs."""
    if not method.trains_weight:
        return 0
    forward = size.dense * prod(size.dims[:1] + size.dims[2:])
    if isinstance(method, _TUCKER):
        return forward + _published_overhead(size, method, ranks) + _published_dw(size, ranks)
    if isinstance(method, GradientFilter):
        return 2 * forward  # dW on the input's grid: this gives the poster's figures back to 0.02
    return forward + size.dense * prod(size.out[:1] + size.out[2:])


def _published_overhead(size: LayerSize, method: Method, ranks: Ranks) -> int:
    total = prod(size.dims)
    if isinstance(method, HOSVD):
        sides = [(d, total // d) for d in size.dims]
        return sum(max(pair) ** 2 * min(pair) for pair in sides)
    if isinstance(method, FixedSubspace):
        return _projection(size.dims, ranks)
    return sum(2 * total * r + r**3 for r in _fitted(size, ranks))


def _published_dw(size: LayerSize, ranks: Ranks) -> int:
    batch, channels, *space = _fitted(size, ranks)
    grid = prod(size.out[2:])
    to_small_batch = batch * prod(size.out)
    kernel_gradient = size.out[1] * batch * channels * size.taps * grid
    to_all_channels = size.out[1] * size.dims[1] * size.taps * channels
    return (
        to_small_batch
        + _expansion(batch * channels, space, size.dims[2:])
        + kernel_gradient
        + to_all_channels
    )


def forward_macs(size: LayerSize) -> int:
    """Return the MACs of the forward pass; those of an exact dW and of dX are the same number."""
    return size.dense // size.groups * size.pixels


def dw_macs(size: LayerSize, method: Method, ranks: Ranks = ()) -> int:
    """Return the MACs of the weight gradient from the kept form."""
    if not method.trains_weight:
        return 0
    if isinstance(method, _TUCKER):
        return _pointwise_dw(size, ranks) if size.pointwise else _kernel_dw(size, ranks)
    if isinstance(method, GradientFilter):
        return _on_patches(size, method)
    if isinstance(method, SpatialMean):
        return size.dense * size.dims[0]
    return forward_macs(size)


def dx_macs(size: LayerSize, method: Method) -> int:
    """Return the MACs of the input gradient."""
    return _on_patches(size, method) if isinstance(method, GradientFilter) else forward_macs(size)


def overhead_macs(size: LayerSize, method: Method, ranks: Ranks = ()) -> int:
    """Return the MACs of bringing the input into its kept form."""
    if isinstance(method, HOSVD):
        total = prod(size.dims)
        return sum(d * total + _EIGH * d**3 for d in size.dims) + _projection(size.dims, ranks)
    if isinstance(method, FixedSubspace):
        return _projection(size.dims, ranks)
    if isinstance(method, ASI):
        fitted = _fitted(size, ranks)
        return (
            _published_order(size.dims, fitted)
            if method.order == "published"
            else _sequential(size.dims, fitted)
        )
    return prod(size.dims) if isinstance(method, Quantized) else 0


def _on_patches(size: LayerSize, method: GradientFilter) -> int:
    patches = size.out[0] * prod(-(-n // method.patch) for n in size.out[2:])
    return size.dims[1] * size.out[1] // size.groups * patches


def _iteration(total: int, d: int, rank: int) -> int:
    """M^T U, M V, and the QR of a (d, r) matrix."""
    return 2 * total * rank + 2 * d * rank**2


def _published_order(dims: Sequence[int], ranks: Ranks) -> int:
    total = prod(dims)
    steps = sum(_iteration(total, d, r) for d, r in zip(dims, ranks, strict=True) if r < d)
    return steps + _projection(dims, ranks)


def _sequential(dims: Sequence[int], ranks: Ranks) -> int:
    """Channels, space, then the batch, each on what the modes before have left."""
    total, macs = prod(dims), 0
    for mode in (*range(1, len(dims)), 0):
        d, rank = dims[mode], ranks[mode]
        if rank < d:
            macs += _iteration(total, d, rank) * (1 if mode else _BATCH_ITERATIONS) + total * rank
            total = total // d * rank
    return macs


def _projection(dims: Sequence[int], ranks: Ranks) -> int:
    total, macs = prod(dims), 0
    for d, rank in zip(dims, ranks, strict=True):
        if rank < d:
            macs += total * rank
            total = total // d * rank
    return macs


def _expansion(leading: int, ranks: Ranks, dims: Sequence[int]) -> int:
    """MACs of multiplying a core (leading, *ranks) out to (leading, *dims), mode after mode."""
    total, macs = leading * prod(ranks), 0
    for d, rank in zip(dims, ranks, strict=True):
        macs += total * d
        total = total // rank * d
    return macs


def _kernel_dw(size: LayerSize, ranks: Ranks) -> int:
    batch, channels, *space = _fitted(size, ranks)
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
    batch, channels, *space = _fitted(size, ranks)
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


def _fitted(size: LayerSize, ranks: Ranks) -> tuple[int, ...]:
    if len(ranks) != len(size.dims):
        raise ValueError(f"{len(ranks)} ranks for an input of {len(size.dims)} modes")
    return tuple(min(r, d) for r, d in zip(ranks, size.dims, strict=True))
