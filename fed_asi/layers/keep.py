"""Which form each method gives an input, and how many bytes that form has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from fed_asi import tucker
from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers.base import LayerState
from fed_asi.methods.base import ASI, HOSVD, FixedSubspace, Method, Quantized, SpatialMean, Vanilla
from fed_asi.methods.forms import Kept, LowBits, TuckerInput, Whole, tucker_bytes

COLD_ITERATIONS = 2  # of a mode that starts anew in every step


def keep(x: Tensor, state: LayerState, method: Method | None = None) -> Kept:
    """Return x: (N, C, *S) in the form `method` keeps; new warm factors become pending.

    method: the layer's by default; its ranks are in (B, C, *S) order.
    """
    method = state.method if method is None else method
    if centered(method):
        x = x - channel_mean(x, state)
    return _KEEP[type(method)](x, method, state)


def centered(method: Method) -> bool:
    """Return whether the method keeps the input less its mean."""
    return bool(getattr(method, "centered", False))


def channel_mean(x: Tensor, state: LayerState) -> Tensor:
    """Return the layer's fixed mean shaped (1, C, 1, ...); an error where calibration gave none."""
    if state.mean is None or state.mean.numel() != x.shape[1]:
        raise UnsupportedLayerError(
            f"{state.name}: a centered method needs the channel means of its input "
            f"({x.shape[1]} values); pass them from a profile"
        )
    return state.mean.to(x).view(1, -1, *[1] * (x.dim() - 2))


def side_by_side(samples: int, size: int | None) -> Iterator[tuple[int, int]]:
    """Yield (m, b): m micro-batches of b samples side by side, then the remainder as (1, rest)."""
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
    """Return x in a dtype that has QR: float32 for half precisions."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def fitted_ranks(ranks: Sequence[int], dims: Sequence[int], name: str) -> tuple[int, ...]:
    """Return canonical ranks for modes of `dims`: (b, C, *S).

    Cut are the batch rank to its mode, and a channel rank below its mode to the pixels there are: a micro-batch
    of one pixel has one direction.
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


def _whole(x: Tensor, method: Method, state: LayerState) -> Kept:
    return Whole((x,))


def _low_bits(x: Tensor, method: Quantized, state: LayerState) -> Kept:
    return LowBits.of(x, method.bits)


def _asi(x: Tensor, method: ASI, state: LayerState) -> Kept:
    kept = TuckerInput(shape=x.shape, dtype=x.dtype)
    found: tucker.Factors = []
    for part in split(x, state.micro_batch):
        ranks = fitted_ranks(method.ranks, part.shape[1:], state.name)
        starts = (state.factors if method.warm else None) or [None] * len(ranks)
        core, found = _decompose(computing(part), method, ranks, starts, state.seed)
        kept.add(core.to(x.dtype), [None if f is None else f.to(x.dtype) for f in found], method.bits == 8)
    if method.warm:
        modes = warm_modes(method, len(found))
        state.pending = [newest(f) if mode in modes else None for mode, f in enumerate(found)]
    return kept


def _decompose(
    x: Tensor, method: ASI, ranks: Sequence[int], starts: tucker.Factors, seed: int
) -> tuple[Tensor, tucker.Factors]:
    if method.order == "published":
        return tucker.published(x, ranks, starts, seed)
    return sequential(x, ranks, starts, seed, 1 if method.warm else COLD_ITERATIONS)


def warm_modes(method: ASI, modes: int) -> range:
    """Return the modes (B, C, *S) whose factors are remembered: in sequential order the batch starts anew."""
    return range(0 if method.order == "published" else 1, modes)


def newest(factor: Tensor | None) -> Tensor | None:
    """Return the last micro-batch's factor; a copy unless it is the only one, as a slice pins all."""
    if factor is None:
        return None
    return factor[0] if factor.shape[0] == 1 else factor[-1].clone()


def sequential(
    x: Tensor, ranks: Sequence[int], starts: tucker.Factors, seed: int, iterations: int = 1
) -> tuple[Tensor, tucker.Factors]:
    """Return (core, factors) of x: (m, b, C, *S), truncated mode after mode: C, *S, then the batch.

    The batch mode starts anew in every step, as shuffled batches share no samples.
    """
    counts = [COLD_ITERATIONS, *[iterations] * (len(ranks) - 1)]
    return tucker.sequential(x, ranks, [None, *starts[1:]], seed, counts)


def _hosvd(x: Tensor, method: HOSVD, state: LayerState) -> Kept:
    epsilon = method.epsilon
    kept = TuckerInput(shape=x.shape, dtype=x.dtype)
    for part in split(x, state.micro_batch):
        for sample in computing(part).unbind():
            core, found = tucker.hosvd(sample[None], epsilon)
            kept.add(core.to(x.dtype), [None if f is None else f.to(x.dtype) for f in found])
    return kept


def _fixed(x: Tensor, method: FixedSubspace, state: LayerState) -> Kept:
    epsilon = method.epsilon
    whole = computing(x).unsqueeze(0)
    known = state.factors or [None] * x.dim()
    fits = state.factors is not None
    factors: tucker.Factors = [None]
    for mode in range(1, x.dim()):
        factor = known[mode]
        if not fits or (factor is not None and factor.shape[0] != x.shape[mode]):
            factor = tucker.leading_factor(tucker.unfold(whole, mode)[0], epsilon)
        factors.append(factor)
    state.factors = factors
    shared = [None if f is None else f.to(whole).unsqueeze(0) for f in factors]
    kept = TuckerInput(shape=x.shape, dtype=x.dtype)
    kept.add(
        tucker.project(whole, shared).to(x.dtype), [None if f is None else f.to(x.dtype) for f in shared]
    )
    return kept


_KEEP: dict[type[Method], Callable[[Tensor, Any, LayerState], Kept]] = {
    Vanilla: _whole,
    SpatialMean: _whole,
    Quantized: _low_bits,
    ASI: _asi,
    HOSVD: _hosvd,
    FixedSubspace: _fixed,
}


def kept_bytes(method: Method, dims: Sequence[int], dtype: torch.dtype) -> int:
    """Return the bytes of one micro-batch's input in the form `method` gives it.

    dims: (N, C, *S). Factors remembered for a warm start count too; methods that train no weight keep
    nothing. An upper bound, the whole input,
    for HOSVD and FixedSubspace, whose ranks depend on the data.
    """
    size = dtype.itemsize
    if not method.trains_weight:
        return 0
    if isinstance(method, Quantized):
        return LowBits.numel_bytes(dims[0], prod(dims[1:]), method.bits, max(size, 4))
    if isinstance(method, ASI):
        ranks = fitted_ranks(method.ranks, dims, "layer")
        kept = tucker_bytes(dims, ranks, size, method.bits == 8)
        return kept + _remembered_bytes(method, dims, ranks, size)
    return size * prod(dims)


def _remembered_bytes(method: ASI, dims: Sequence[int], ranks: Sequence[int], size: int) -> int:
    """Return the bytes of the factors that a warm start needs beside the newest ones, which are kept anyway.

    In int8 the newest are kept rounded, so they are remembered once more.
    """
    if not method.warm:
        return 0
    factors = sum(dims[m] * ranks[m] for m in warm_modes(method, len(dims)) if ranks[m] < dims[m])
    return size * factors * (2 if method.bits == 8 else 1)
