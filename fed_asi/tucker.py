"""Tucker forms of activations, for one micro-batch or many side by side.

Every tensor here has a leading axis m of independent micro-batches, then the modes: x is
(m, d_1, ..., d_k), a factor (m, d_i, r_i) with orthonormal columns (but see `sequential`), a core (m, r_1, ..., r_k).
A factor of None is the identity: that mode is kept whole. Everything is pure torch and never waits for a device,
except HOSVD, whose ranks depend on the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import cast

import torch
from torch import Tensor

from fed_asi import machine, seeds
from fed_asi.gpus import sent

Factors = list[Tensor | None]

FEW_PIXELS = 256
HALVED_SAMPLES, PLANE_SAMPLES, PLANE_PIXELS = 64, 8, 256
SMALLEST_LENGTH = 1e-30
GRAM_DIM = 64  # modes up to this size are iterated on their Gram matrix: fewer and smaller products


def kept_numel(dims: Sequence[int], ranks: Sequence[int]) -> int:
    """Return the number of elements in core and factors; a mode at full rank keeps no factor."""
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
    """Return the core multiplied by the factors of `modes`; of all by default, which reconstructs x."""
    for mode in range(len(factors)) if modes is None else modes:
        factor = factors[mode]
        if factor is not None:
            core = mode_product(core, factor.mT, mode)
    return core


def orth(v: Tensor) -> Tensor:
    """Return orthonormal columns spanning those of v: (..., d, r), r <= d, by Householder QR.

    Cholesky-QR is no faster at these ranks and loses orthogonality on fast-decaying spectra.
    """
    if v.dim() == 3 and v.shape[0] == 1:  # a plain QR is cheaper to call than a batched one
        return orth(v[0]).unsqueeze(0)
    return _qr(v)


@machine.one_thread
def _qr(v: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(v)[0]
    return basis


@lru_cache(maxsize=256)
def _gaussian(seed: int, d: int, r: int) -> Tensor:
    return torch.randn(d, r, generator=seeds.generator(seed, "start", d))


@lru_cache(maxsize=256)
def _gaussian_there(seed: int, d: int, r: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return what `_gaussian` drew, on a device, cached there for later steps."""
    with torch.inference_mode(False):  # steps that train use it too, whoever asks first
        return sent(_gaussian(seed, d, r).to(dtype), device)


def random_start(seed: int, d: int, r: int, like: Tensor) -> Tensor:
    """Return the (d, r) Gaussian start of `seed`, the same on every device, without the global random state."""
    if like.device.type != "cpu":
        return _gaussian_there(seed, d, r, like.device, like.dtype)
    found = _gaussian(seed, d, r)
    return found if found.dtype == like.dtype else found.to(dtype=like.dtype)


def fit_start(start: Tensor | None, seed: int, d: int, r: int, like: Tensor) -> Tensor:
    """Return a start of shape (d, r): the warm one, cut or filled up to r columns, or a random one.

    start: (d', r') or None; ignored when d' != d.
    """
    if start is None or start.shape[0] != d:
        return random_start(seed, d, r, like)
    if start.device != like.device or start.dtype != like.dtype:
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


def sequential(
    x: Tensor, ranks: Sequence[int], starts: Sequence[Tensor | None], seed: int, counts: Sequence[int]
) -> tuple[Tensor, Factors]:
    """Return (core, factors) of x: (m, b, C, *S), truncated mode after mode: C, *S, then the batch.

    starts: warm factors (d_i, r_i) or None. counts: steps of subspace iteration of each mode.
    The channel factor of an input of few pixels (`few_pixels`) has unit columns that are only nearly orthogonal.
    A single micro-batch is computed without its axis, as plain products are cheaper to call than batched ones.
    """
    if x.shape[0] > 1:
        return _Cuts(1, ranks, starts, seed, counts).of(x)
    core, factors = _Cuts(0, ranks, starts, seed, counts).of(x[0])
    return core.unsqueeze(0), [None if f is None else f.unsqueeze(0) for f in factors]


def few_pixels(shape: Sequence[int], rank: int, count: int) -> bool:
    """Return whether the channels of (b, *S, C) are cheapest to cut by the Gram matrix of the pixels.

    That matrix costs as much as `pixels` columns and makes iterations almost free; without it, each costs 2 * `rank`.
    """
    pixels = prod(shape[:-1])
    return pixels < shape[-1] and pixels <= min(FEW_PIXELS, 2 * rank * count)


@dataclass(frozen=True, slots=True)
class _Cuts:
    """The cuts of `sequential`, of x: (m, b, C, *S) with lead 1, (b, C, *S) with lead 0.

    Each mode in turn is the last axis and, once cut, becomes the first, so that almost nothing is copied.
    """

    lead: int
    ranks: Sequence[int]
    starts: Sequence[Tensor | None]
    seed: int
    counts: Sequence[int]

    def of(self, x: Tensor) -> tuple[Tensor, Factors]:
        """Return (core, factors)."""
        lead = self.lead
        rest, channels = self.channels(x)  # (..., C, b, *S)
        factors: Factors = [None, channels]
        if self._is_plane(rest):
            rest, high, wide = self.plane(rest)
            factors += [high, wide]
        else:
            rest, space = self.space(rest)
            factors += space
        rest, factors[0] = self.last(rest, 0)  # (..., B, *reversed S, C)
        return rest.permute(*range(lead + 1), *range(x.dim() - 1, lead, -1)).contiguous(), factors

    def channels(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (x with its channels cut and first: (..., r, b, *S), the factor).

        x is read in the order of its memory: with its channels last or contiguous it is not copied.
        """
        lead, rank = self.lead, self.ranks[1]
        if rank >= x.shape[lead + 1]:
            return x.transpose(lead, lead + 1), None
        last = x.movedim(lead + 1, -1)
        if few_pixels(last.shape[lead:], rank, self.counts[1]):
            return self.by_pixels(last)
        if not last.is_contiguous():
            return self.images(x)
        rows, factor = last.flatten(lead, -2), self._start(1, x.shape[lead + 1], x)
        samples = self._seen(x)
        seen = rows
        if samples < x.shape[lead]:
            seen = rows[..., : samples * last.shape[lead + 1 : -1].numel(), :]
        for _ in range(self.counts[1]):
            factor = orth(times(times(factor.mT, seen.mT), seen).mT)
        return times(factor.mT, rows.mT).view(*x.shape[:lead], rank, *last.shape[lead:-1]), factor

    def images(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as `channels`, for an x that is read image by image."""
        lead, factor = self.lead, self._start(1, x.shape[self.lead + 1], x)
        images = x.reshape(*x.shape[: lead + 2], -1)
        seen = images[..., : self._seen(x), :, :]
        for _ in range(self.counts[1]):
            factor = orth(((factor.mT.unsqueeze(-3) @ seen) @ seen.mT).sum(-3).mT)
        small = (factor.mT.unsqueeze(-3) @ images).transpose(lead, lead + 1)
        return small.reshape(*small.shape[: lead + 2], *x.shape[lead + 2 :]), factor

    def by_pixels(self, last: Tensor) -> tuple[Tensor, Tensor]:
        """Return the same as `channels`, for (..., b, *S, C) with fewer pixels than channels, by their Gram matrix.

        The basis w found there spans pixels, so the projection of x is (x w) w^T. The columns of x w, scaled to unit
        length, serve as the channel factor; their lengths go into the core.
        """
        lead, d = self.lead, last.shape[-1]
        rows, start = last.flatten(lead, -2), self.starts[1]
        if start is not None and start.shape[0] == d:
            first = self._start(1, d, last)
            thin = times(first.mT, rows.mT)  # the thin matrices stay on the left, as in `iterate`
        else:
            thin = random_start(self.seed, rows.shape[-2], self.ranks[1], last).mT
        gram = times(rows, rows.mT)
        for _ in range(self.counts[1]):
            thin = orth(times(thin.expand(*gram.shape[:lead], -1, -1), gram).mT).mT
        found = times(thin, rows)
        length = torch.linalg.vector_norm(found, dim=-1, keepdim=True)
        small = (thin * length).view(*last.shape[:lead], -1, *last.shape[lead:-1])
        return small, (found / length.clamp_min(SMALLEST_LENGTH)).mT

    def space(self, x: Tensor) -> tuple[Tensor, Factors]:
        """Return (x: (..., r, b, *S) cut: (..., *reversed S, r, b), the factors), the first of S cut first."""
        lead, factors = self.lead, Factors()
        x = x.permute(*range(lead + 2), *range(x.dim() - 1, lead + 1, -1))
        for mode in range(2, x.dim() - lead):
            x, factor = self.last(x, mode)
            factors.append(factor)
        return x, factors

    def plane(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same as `space`, for (..., r, b, H, W), with factors found from samples spread over the batch.

        A few samples tell the spatial bases as well as all of them (docs/results/warm_start.md). Both modes of all
        samples are then cut in one product.
        """
        lead, samples, pixels = x.shape[: self.lead], x.shape[self.lead + 1], x.shape[-2:].numel()
        spread = x[(..., slice(None, None, samples // PLANE_SAMPLES), slice(None), slice(None))]
        high, wide = (cast(Tensor, factor) for factor in self.space(spread)[1])
        both = wide.mT[..., :, None, None, :] * high.mT[..., None, :, :, None]
        cut = both.flatten(-2).flatten(-3, -2) @ x.reshape(*lead, -1, pixels).mT
        return cut.view(*lead, *both.shape[-4:-2], *x.shape[self.lead : self.lead + 2]), high, wide

    def last(self, x: Tensor, mode: int) -> tuple[Tensor, Tensor | None]:
        """Return (x with its last axis, `mode`, cut and put first, the factor)."""
        lead, d, rank = self.lead, x.shape[-1], self.ranks[mode]
        if rank >= d:
            return x.movedim(-1, lead), None
        rows = x.reshape(*x.shape[:lead], -1, d)
        factor = self._start(mode, d, x)
        gram = times(rows.mT, rows) if d <= GRAM_DIM else None
        for _ in range(self.counts[mode]):
            thin = times(times(factor.mT, rows.mT), rows).mT if gram is None else times(gram, factor)
            factor = orth(thin)
        return times(factor.mT, rows.mT).view(*x.shape[:lead], rank, *x.shape[lead:-1]), factor

    def _is_plane(self, x: Tensor) -> bool:
        """Whether (..., r, b, *S) has two small spatial modes, both cut, and many samples."""
        space = x.shape[self.lead + 2 :]
        cut = len(space) == 2 and self.ranks[2] < space[0] and self.ranks[3] < space[1]
        return cut and space.numel() <= PLANE_PIXELS and x.shape[self.lead + 1] >= 4 * PLANE_SAMPLES

    def _start(self, mode: int, d: int, like: Tensor) -> Tensor:
        factor = fit_start(self.starts[mode], self.seed, d, self.ranks[mode], like)
        return factor.expand(like.shape[0], -1, -1) if self.lead else factor

    def _seen(self, x: Tensor) -> int:
        """Return how many samples of a micro-batch are used to find the channel basis.

        Half of a large micro-batch tells it nearly as well and saves a third of the work
        (docs/results/warm_start.md).
        """
        samples = x.shape[self.lead]
        return samples // 2 if samples >= HALVED_SAMPLES and self.ranks[1] <= samples // 2 else samples


def times(a: Tensor, b: Tensor) -> Tensor:
    """Return a @ b for two matrices, or two batches of as many; `@` first brings its operands into one form."""
    return torch.mm(a, b) if a.dim() == 2 else torch.bmm(a, b)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the batched product a @ b, as a plain one where there is one micro-batch."""
    if a.shape[0] == 1:
        return (a[0] @ b[0]).unsqueeze(0)
    return a @ b


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

    Energy is counted uncentred, as published. A zero matrix gives k = 1.
    """
    largest = float(matrix.abs().max())
    if largest and not 1e-6 < largest < 1e6:
        matrix = (
            matrix / largest
        )  # vectors and shares stay the same; unscaled squares could vanish or overflow
    values, vectors = _eigh(matrix @ matrix.mT)
    rank = energy_rank(values, epsilon)
    if rank >= matrix.shape[0]:
        return None
    leading: Tensor = vectors[:, -rank:].flip(-1)  # a copy: a slice would keep the whole matrix alive
    return leading


@machine.one_thread
def _eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors; in float64 where LAPACK does not converge, as for some of low rank."""
    try:
        values, vectors = torch.linalg.eigh(gram)
    except RuntimeError:  # torch.linalg.LinAlgError is one
        values, vectors = torch.linalg.eigh(gram.double())
    return values.to(gram.dtype), vectors.to(gram.dtype)


def hosvd(x: Tensor, epsilon: float) -> tuple[Tensor, Factors]:
    """Return (core, factors) of x: (1, d_1, ..., d_k), each mode cut at `epsilon` of the whole's energy."""
    found = [leading_factor(unfold(x, mode)[0], epsilon) for mode in range(x.dim() - 1)]
    factors: Factors = [None if f is None else f.unsqueeze(0) for f in found]
    return project(x, factors), factors
