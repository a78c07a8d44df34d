"""Activation Subspace Iteration: a Tucker form at fixed ranks, each basis found from that of the last step.

Source: Nguyen et al., "Beyond Low-rank Decomposition", ICML 2025, arXiv 2505.05086, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Self, cast

import torch
from torch import Tensor

from fed_asi import tucker
from fed_asi.errors import ConfigError, UnsupportedLayerError, nearest
from fed_asi.methods.base import Keeper, LayerInput, Method, Ranks, register
from fed_asi.methods.forms import Kept, TuckerInput, tucker_bytes
from fed_asi.methods.parts import computing, split
from fed_asi.methods.ranks import PUBLISHED_EPSILONS, proposed_ranks, published_ranks
from fed_asi.methods.sizes import LayerSize, Passes, Traits
from fed_asi.methods.tucker_method import TuckerMethod, cut_modes, fitted, projection

ORDERS = ("sequential", "published")
COLD_ITERATIONS = 2  # of a mode that starts from random numbers in every step
_ROUNDING = 6  # passes over a row: its maximum, the scale, and the rounding itself


@register
@dataclass(frozen=True, slots=True)
class ASI(TuckerMethod):
    """A Tucker form found by warm-started subspace iteration, at fixed ranks.

    ranks: one for each mode of the input: (B, C, H, W) for a 2-d convolution, (B, F) or (B, N, F)
        for a linear layer. A batch smaller than its rank uses the batch size. A channel rank below the number of
        channels is at most the number of pixels in a micro-batch.
    order: "sequential" truncates mode after mode, channels first; "published" finds every mode
        from the whole input, batch mode first, as the papers do.
    bits: 32, or 8 to keep core and factors in int8 with one scale a row.
    warm: start from the factors of the last step, which stay in memory between steps; False starts every step
        from the same random numbers, takes two iterations, and keeps nothing between steps.
    """

    kind: ClassVar[str] = "asi"
    example: ClassVar[str] = "asi(ranks=(8, 8, 3, 3))"
    by_default: ClassVar[bool] = True
    ranks: tuple[int, ...]
    order: str = "sequential"
    bits: int = 32
    centered: bool = False
    warm: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.ranks, (tuple, list)) or not self.ranks:
            raise ConfigError(f"asi: ranks must be one integer per mode, not {self.ranks!r}")
        if not all(isinstance(r, int) and not isinstance(r, bool) and r > 0 for r in self.ranks):
            raise ConfigError(f"asi: every rank must be an integer above 0, not {self.ranks!r}")
        object.__setattr__(self, "ranks", tuple(self.ranks))
        if self.order not in ORDERS:
            raise ConfigError(f"asi: unknown order {self.order!r}; {nearest(str(self.order), ORDERS)}")
        if self.bits not in (8, 32):
            raise ConfigError(f"asi: bits must be 32 or 8, not {self.bits!r}")

    @property
    def warm_start(self) -> bool:
        """Whether each step starts from the factors of the last one."""
        return self.warm

    @property
    def mode_ranks(self) -> Ranks:
        """The ranks, in the layer's own order."""
        return self.ranks

    def reordered(self, order: Callable[[Ranks], Ranks]) -> Self:
        """Return the method with its ranks in another order."""
        ranks = order(self.ranks)
        return self if ranks == self.ranks else replace(self, ranks=ranks)

    def pooled(self) -> Self:
        """Return the method for an input of one pixel."""
        return replace(self, ranks=(*self.ranks[:2], *[1] * (len(self.ranks) - 2)))

    def unsupported(self, layer: Traits) -> str | None:
        """Return why these ranks do not fit a layer with these modes and channels; None where they do."""
        count, ranks = len(self.ranks), tuple(self.ranks)
        if layer.modes is None and count < 2:
            return f"{count} rank {ranks}; a linear layer needs one for batch and one for features"
        if layer.modes is not None and count != layer.modes:
            return f"{count} ranks {ranks} for an input of {layer.modes} modes (batch, channels, space)"
        rank = ranks[layer.channel_mode]
        if rank > layer.channels:
            what = "channels" if layer.spatial else "features"
            return f"rank {rank} is above its {layer.channels} input {what}; lower it"
        return None

    def form(self, x: Tensor, keeper: Keeper) -> Kept:
        """Return the Tucker forms of the micro-batches of x: (N, C, *S)."""
        kept = TuckerInput(shape=x.shape, dtype=x.dtype)
        found: tucker.Factors = []
        for part in split(x, keeper.micro_batch):
            ranks = fitted_ranks(self.ranks, part.shape[1:], keeper.name)
            starts = (keeper.factors if self.warm else None) or [None] * len(ranks)
            core, found = self._decompose(computing(part), ranks, starts, keeper.seed)
            kept.add(core.to(x.dtype), [None if f is None else f.to(x.dtype) for f in found])
        if self.warm:
            modes = self._warm_modes(len(found))
            keeper.pending = [_newest(f) if mode in modes else None for mode, f in enumerate(found)]
        return self.rounded(kept)

    def unrounded(self) -> Self:
        """Return the method in 32 bits."""
        return self if self.bits == 32 else replace(self, bits=32)

    def rounded(self, kept: Kept) -> Kept:
        """Return the Tucker forms in this method's bits."""
        return cast(TuckerInput, kept).in_int8() if self.bits == 8 else kept

    def _decompose(
        self, x: Tensor, ranks: Sequence[int], starts: tucker.Factors, seed: int
    ) -> tuple[Tensor, tucker.Factors]:
        if self.order == "published":
            return tucker.published(x, ranks, starts, seed)
        return sequential(x, ranks, starts, seed, 1 if self.warm else COLD_ITERATIONS)

    def _warm_modes(self, modes: int) -> range:
        """The modes (B, C, *S) whose factors are kept between steps; in sequential order, all but the batch."""
        return range(0 if self.order == "published" else 1, modes)

    def kept_bytes(self, dims: Sequence[int], dtype: torch.dtype) -> int:
        """Return the bytes of core and factors, and of what is kept for a warm start."""
        ranks = fitted_ranks(self.ranks, dims, "layer")
        kept = tucker_bytes(dims, ranks, dtype.itemsize, self.bits == 8)
        if not self.warm:
            return kept
        # A step keeps its newest factors anyway. In int8 it keeps them rounded, so a warm start needs a second copy.
        factors = sum(dims[m] * ranks[m] for m in self._warm_modes(len(dims)) if ranks[m] < dims[m])
        return kept + dtype.itemsize * factors * (2 if self.bits == 8 else 1)

    def found_ranks(self, x: Tensor, keeper: Keeper) -> Ranks:
        """Return the ranks; they do not depend on the data."""
        return self.ranks

    def published_overhead(self, size: LayerSize, ranks: Ranks) -> int:
        """Return one step of subspace iteration for every mode."""
        total = prod(size.dims)
        return sum(2 * total * r + r**3 for r in fitted(size, ranks))

    def overhead_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return those of the order in which the modes are truncated."""
        found = fitted(size, ranks)
        return (_published_order if self.order == "published" else _sequential_order)(size.dims, found)

    def keeping(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return two products and a QR for each iteration of a mode, and the rounding of core and factors to int8.

        A QR of a (d, r) matrix goes column by column and takes 2 d r^2 multiplications.
        """
        found, calls, elements = fitted(size, ranks), 1, 0
        for mode in cut_modes(size, ranks):
            iterations = self._iterations(mode)
            calls += 2 + 3 * iterations
            elements += 2 * size.dims[mode] * found[mode] ** 2 * iterations
        if self.bits == 8:
            rounded = prod(found) + sum(size.dims[m] * found[m] for m in cut_modes(size, ranks))
            calls += _ROUNDING * (1 + len(cut_modes(size, ranks)))
            elements += _ROUNDING * rounded
        return Passes(calls, elements)

    def restoring(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return one product a mode, and two passes over whatever was rounded."""
        products = len(cut_modes(size, ranks))
        return Passes(products + (2 * (1 + products) if self.bits == 8 else 0))

    def _iterations(self, mode: int) -> int:
        cold = not self.warm or (mode == 0 and self.order == "sequential")
        return COLD_ITERATIONS if cold else 1

    @classmethod
    def propose(cls, seen: LayerInput, order: str = "sequential") -> Iterator[tuple[Method, float | None]]:
        """Yield the papers' grid of ranks, and finer ones found from the spectra of the input's modes."""
        values = seen.spectra()
        for epsilon in PUBLISHED_EPSILONS if seen.grid or seen.published else ():
            yield ASI(published_ranks(values, epsilon), order=order), epsilon
        if seen.published:
            return
        dims = tuple(len(mode) for mode in values)
        tried = [(ranks, bits) for ranks in proposed_ranks(dims, values, seen.density) for bits in (32, 8)]
        tried.append((dims, 32))  # every rank full: exact, for budgets that are large enough
        for ranks, bits in tried:
            for centered in seen.centering:
                yield ASI(ranks, bits=bits, centered=centered, warm=False), None

    def words(self) -> str:
        """Return the ranks and the number format."""
        return f"Tucker {'x'.join(str(r) for r in self.ranks)}" + (" in 8 bits" if self.bits == 8 else "")


def fitted_ranks(ranks: Sequence[int], dims: Sequence[int], name: str) -> Ranks:
    """Return ranks for modes of `dims`: (b, C, *S). Raises UnsupportedLayerError for ranks that no mode can have.

    The batch rank is cut to the batch size. A channel rank below the number of channels is cut to the number of pixels,
    as a micro-batch of one pixel has one direction.
    """
    if len(ranks) != len(dims):
        raise UnsupportedLayerError(
            f"{name}: {len(ranks)} ranks {tuple(ranks)} for an input of {len(dims)} modes {tuple(dims)}"
        )
    for mode, (rank, d) in enumerate(zip(ranks, dims, strict=True)):
        if mode and rank > d:
            raise UnsupportedLayerError(
                f"{name}: rank {rank} is above the {d} of mode {mode} of the input "
                f"{tuple(dims)} (batch, channels, space); lower it"
            )
    pixels = max(1, dims[0] * prod(dims[2:]))
    channels = ranks[1] if ranks[1] == dims[1] else min(ranks[1], pixels)
    return (min(ranks[0], dims[0]), channels, *ranks[2:])


def sequential(
    x: Tensor, ranks: Sequence[int], starts: tucker.Factors, seed: int, iterations: int = 1
) -> tuple[Tensor, tucker.Factors]:
    """Return (core, factors) of x: (m, b, C, *S), truncated mode after mode: C, *S, then the batch.

    The batch mode starts from random numbers in every step, as shuffled batches share no samples.
    """
    counts = [COLD_ITERATIONS, *[iterations] * (len(ranks) - 1)]
    return tucker.sequential(x, ranks, [None, *starts[1:]], seed, counts)


def _newest(factor: Tensor | None) -> Tensor | None:
    """Return the last micro-batch's factor; as a copy unless it is the only one, since a slice keeps all alive."""
    if factor is None:
        return None
    return factor[0] if factor.shape[0] == 1 else factor[-1].clone()


def _iteration(total: int, d: int, rank: int) -> int:
    """M^T U, M V, and the QR of a (d, r) matrix."""
    return 2 * total * rank + 2 * d * rank**2


def _published_order(dims: Sequence[int], ranks: Ranks) -> int:
    total = prod(dims)
    steps = sum(_iteration(total, d, r) for d, r in zip(dims, ranks, strict=True) if r < d)
    return steps + projection(dims, ranks)


def _sequential_order(dims: Sequence[int], ranks: Ranks) -> int:
    """Channels, space, then the batch, each applied to what the modes before it have left."""
    total, macs = prod(dims), 0
    for mode in (*range(1, len(dims)), 0):
        d, rank = dims[mode], ranks[mode]
        if rank < d:
            macs += _iteration(total, d, rank) * (1 if mode else COLD_ITERATIONS) + total * rank
            total = total // d * rank
    return macs
