"""Tucker forms of activations, for one micro-batch or many side by side.

Every tensor here has a leading axis m of independent micro-batches, then the modes: x is
(m, d_1, ..., d_k), a factor (m, d_i, r_i) with orthonormal columns, a core (m, r_1, ..., r_k).
A factor of None is the identity: that mode is kept whole. Everything is pure torch, without host
synchronisation but in the functions of HOSVD, whose ranks depend on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from fed_asi import seeds

Factors = list[Tensor | None]


def kept_numel(dims: Sequence[int], ranks: Sequence[int]) -> int:
    """Return the elements in core and factors; a mode at full rank keeps no factor."""
    return prod(ranks) + sum(d * r for d, r in zip(dims, ranks, strict=True) if r < d)


def unfold(x: Tensor, mode: int) -> Tensor:
    """Return x: (m, d_1, ..., d_k) as (m, d_mode, all other modes); modes count from 0."""
    return x.movedim(mode + 1, 1).flatten(2)


def mode_product(x: Tensor, factor: Tensor, mode: int) -> Tensor:
    """Return x with its mode mapped by factor^T, for factor: (m, d, r) or, shared, (d, r)."""
    shape = list(x.shape)
    shape[mode + 1] = factor.shape[-1]
    shape = [shape[0], shape[mode + 1], *shape[1 : mode + 1], *shape[mode + 2 :]]
    product: Tensor = factor.mT @ unfold(x, mode)
    return product.view(shape).movedim(1, mode + 1)


def expand(core: Tensor, factors: Sequence[Tensor | None], modes: Sequence[int] | None = None) -> Tensor:
    """Return the core multiplied out over `modes` (all by default): the whole reconstruction."""
    for mode in range(len(factors)) if modes is None else modes:
        factor = factors[mode]
        if factor is not None:
            core = mode_product(core, factor.mT, mode)
    return core


def orth(v: Tensor) -> Tensor:
    """Return orthonormal columns spanning those of v: (..., d, r), r <= d, by Householder QR.

    Cholesky-QR is no faster at these ranks and loses orthogonality on fast-decaying spectra.
    """
    basis: Tensor = torch.linalg.qr(v)[0]
    return basis


@lru_cache(maxsize=256)
def _gaussian(seed: int, d: int, r: int) -> Tensor:
    return torch.randn(d, r, generator=seeds.generator(seed, "start", d))


def random_start(seed: int, d: int, r: int, like: Tensor) -> Tensor:
    """Return the (d, r) Gaussian start of `seed`, always the same; the global state is not used."""
    return _gaussian(seed, d, r).to(device=like.device, dtype=like.dtype)


def fit_start(start: Tensor | None, seed: int, d: int, r: int, like: Tensor) -> Tensor:
    """Return a (d, r) start: the warm one, cut or filled up to r columns, or a random one.

    start: (d', r') or None; of no use when d' != d.
    """
    if start is None or start.shape[0] != d:
        return random_start(seed, d, r, like)
    start = start.to(device=like.device, dtype=like.dtype)
    if start.shape[1] == r:
        return start
    if start.shape[1] > r:
        return start[:, :r]
    return torch.cat([start, random_start(seed, d, r - start.shape[1], like)], dim=1)


def iterate(matrix: Tensor, start: Tensor, iterations: int = 1) -> Tensor:
    """Return orth(M M^T ... start), `iterations` steps of subspace iteration.

    matrix: (m, d, n). start: (d, r) or (m, d, r). The thin matrices stay on the left: BLAS is
    several times slower the other way round.
    """
    start = start.expand(matrix.shape[0], -1, -1)
    for _ in range(iterations):
        start = orth(product(product(start.mT, matrix), matrix.mT).mT)
    return start


def published(x: Tensor, ranks: Sequence[int], starts: Factors, seed: int) -> tuple[Tensor, Factors]:
    """Return (core, factors): one step of subspace iteration a mode, each on the whole input.

    x: (m, d_1, ..., d_k). starts: warm factors (d_i, r_i) or None.
    Source: arXiv 2505.05086, algorithm 1.
    """
    factors: Factors = []
    for mode, rank in enumerate(ranks):
        d = x.shape[mode + 1]
        if rank >= d:
            factors.append(None)
            continue
        start = fit_start(starts[mode], seed, d, rank, x)
        factors.append(iterate(unfold(x, mode), start))
    return project(x, factors), factors


def truncate_channels(
    x: Tensor, rank: int, start: Tensor | None, *, seed: int, iterations: int
) -> tuple[Tensor, Tensor | None]:
    """Return `truncate` on mode 1 of x: (m, b, C, ...), reading x in the order of its memory.

    x with its channels last or contiguous is not copied. The projected x is (m, b, rank, ...).
    """
    if rank >= x.shape[2]:
        return x, None
    last = x.movedim(2, -1)
    if last.is_contiguous() and x.dim() > 3:
        return _truncate_rows(last, fit_start(start, seed, x.shape[2], rank, x), iterations)
    return _truncate_images(x, fit_start(start, seed, x.shape[2], rank, x), iterations)


def _truncate_rows(x: Tensor, factor: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """x: (m, b, ..., C), contiguous; factor: the start (C, r)."""
    rows = x.flatten(1, -2)
    factor = factor.expand(x.shape[0], -1, -1)
    for _ in range(iterations):
        factor = orth(product(product(factor.mT, rows.mT), rows).mT)
    small = product(factor.mT, rows.mT)  # (m, r, b * ...)
    return small.view(x.shape[0], -1, *x.shape[1:-1]).movedim(1, 2), factor


def _truncate_images(x: Tensor, factor: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """x: (m, b, C, ...); factor: the start (C, r)."""
    m, b, channels = x.shape[:3]
    images = x.reshape(m * b, channels, -1)
    factor = factor.expand(m, -1, -1)
    for _ in range(iterations):
        small = _each(factor, b) @ images
        factor = orth((small @ images.mT).view(m, b, -1, channels).sum(1).mT)
    small = _each(factor, b) @ images
    return small.view(m, b, -1, *x.shape[3:]), factor


def _each(factor: Tensor, b: int) -> Tensor:
    """Return factor^T: (m, r, C) for each of b samples: (m * b, r, C)."""
    return factor.mT.unsqueeze(1).expand(-1, b, -1, -1).flatten(0, 1)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the batched product a @ b, as a plain one where there is one micro-batch."""
    if a.shape[0] == 1:
        return (a[0] @ b[0]).unsqueeze(0)
    return a @ b


def truncate(
    x: Tensor, mode: int, rank: int, start: Tensor | None, *, seed: int, iterations: int
) -> tuple[Tensor, Tensor | None]:
    """Return (x projected on its leading subspace in `mode`, the factor); (x, None) at full rank."""
    d = x.shape[mode + 1]
    if rank >= d:
        return x, None
    matrix = unfold(x, mode)
    factor = iterate(matrix, fit_start(start, seed, d, rank, x), iterations)
    rest = [*x.shape[1 : mode + 1], *x.shape[mode + 2 :]]
    small = product(factor.mT, matrix).view(x.shape[0], rank, *rest)
    return small.movedim(1, mode + 1), factor


def project(x: Tensor, factors: Sequence[Tensor | None]) -> Tensor:
    """Return x multiplied by every factor's transpose: the core, contiguous."""
    for mode, factor in enumerate(factors):
        if factor is not None:
            x = mode_product(x, factor, mode)
    return x.contiguous()


def energy_rank(gram_values: Tensor, epsilon: float) -> int:
    """Return the smallest k whose largest eigenvalues of a Gram matrix hold a share `epsilon`."""
    values = gram_values.flip(-1).clamp_min(0).double()
    total = values.sum()
    if not torch.isfinite(total) or total <= 0:
        return 1
    share = values.cumsum(-1) / total
    return min(int((share < epsilon).sum()) + 1, values.numel())


def leading_factor(matrix: Tensor, epsilon: float) -> Tensor | None:
    """Return the (d, k) leading left singular vectors of matrix: (d, n) holding `epsilon`, or None at k = d.

    The uncentred energy is counted, as published. Raises nothing on a zero matrix: k is 1.
    """
    values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    rank = energy_rank(values, epsilon)
    if rank >= matrix.shape[0]:
        return None
    leading: Tensor = vectors[:, -rank:].flip(-1)  # a copy: a slice would pin the whole matrix
    return leading


def hosvd(x: Tensor, epsilon: float) -> tuple[Tensor, Factors]:
    """Return (core, factors) of x: (1, d_1, ..., d_k), each mode cut at `epsilon` of the whole's energy."""
    found = [leading_factor(unfold(x, mode)[0], epsilon) for mode in range(x.dim() - 1)]
    factors: Factors = [None if f is None else f.unsqueeze(0) for f in found]
    return project(x, factors), factors
