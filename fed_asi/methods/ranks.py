"""Ranks worth trying for one layer, proposed from the spectra of its input's modes.

These are only proposals: what a candidate is worth is decided by the weight gradient that it gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from fed_asi.machine import one_thread
from fed_asi.tucker import energy_rank, kept_numel, unfold

PUBLISHED_EPSILONS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


Ranks = tuple[int, ...]


def spectra(x: Tensor) -> list[Tensor]:
    """Return for each mode the eigenvalues (d_m,) of its Gram matrix, ascending, summed over micro-batches.

    x: (m, d_1, ..., d_k), m independent micro-batches.
    """
    return [_mode_spectrum(unfold(x, mode).double()) for mode in range(x.dim() - 1)]


@one_thread
def _mode_spectrum(rows: Tensor) -> Tensor:
    """Return the summed squared singular values of rows: (m, d, n), ascending, padded with zeros to d."""
    d, n = rows.shape[1], rows.shape[2]
    gram = rows @ rows.mT if d <= n else rows.mT @ rows
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sum(0)
    return torch.cat([values.new_zeros(d - len(values)), values])


def published_ranks(values: Sequence[Tensor], epsilon: float) -> Ranks:
    """Return for each mode the smallest rank that holds a share `epsilon` of the energy."""
    return tuple(energy_rank(mode, epsilon) for mode in values)


def proposed_ranks(dims: Sequence[int], values: Sequence[Tensor], limit: int) -> list[Ranks]:
    """Return at most `limit` rank tuples of rising size, from all ones to nearly whole.

    dims: (d_1, ..., d_k). values: what `spectra` returned. They lie on two greedy paths. On the first, the mode that
    recovers the most lost energy for each kept element grows next. On the second, every mode but the channels is
    whole.
    """
    tails = [_tails(mode) for mode in values]
    whole = kept_numel(dims, dims)
    path = _greedy_path(dims, tails)
    path += [(*dims[:1], rank, *dims[2:]) for rank in _STEPS if len(dims) > 1 and rank < dims[1]]
    path += [published_ranks(values, epsilon) for epsilon in (0.95, 0.99)]
    small = {ranks for ranks in path if kept_numel(dims, ranks) < whole}
    return _spread(sorted(small, key=lambda ranks: (kept_numel(dims, ranks), ranks)), dims, limit)


def _tails(values: Tensor) -> list[float]:
    """Return for every rank 0..d the share of energy that it loses."""
    total = float(values.sum()) or 1.0
    kept = torch.cat([values.new_zeros(1), values.flip(0).cumsum(0)])
    return [max(0.0, 1.0 - float(k) / total) for k in kept]


def _greedy_path(dims: Sequence[int], tails: Sequence[Sequence[float]]) -> list[Ranks]:
    ranks = [1] * len(dims)
    path = [tuple(ranks)]
    while True:
        best: tuple[float, int, int] | None = None
        kept = kept_numel(dims, ranks)
        for mode, d in enumerate(dims):
            if ranks[mode] == d:
                continue
            grown = next((step for step in _STEPS if ranks[mode] < step < d), d)
            gain = tails[mode][ranks[mode]] - tails[mode][grown]
            cost = kept_numel(dims, [*ranks[:mode], grown, *ranks[mode + 1 :]]) - kept
            score = gain / max(cost, 1)
            if best is None or score > best[0]:
                best = (score, mode, grown)
        if best is None:
            return path
        ranks[best[1]] = best[2]
        path.append(tuple(ranks))


def _spread(ordered: Sequence[Ranks], dims: Sequence[int], limit: int) -> list[Ranks]:
    """Return at most `limit` of them, dropped where neighbours are closest in size."""
    kept, sizes = list(ordered), [float(kept_numel(dims, ranks)) for ranks in ordered]
    while len(kept) > max(2, limit):
        ratios = [b / a for a, b in pairwise(sizes)]
        spans = [ratios[i - 1] * ratios[i] for i in range(1, len(kept) - 1)]
        narrowest = 1 + spans.index(min(spans))
        del kept[narrowest], sizes[narrowest]
    return kept
