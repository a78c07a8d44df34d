"""What becomes of an update whose device began from weights that have moved on since."""

from __future__ import annotations

from dataclasses import replace

import torch

from fed_asi.strategies.aggregate import Update, Weights
from fed_asi.strategies.base import rounded
from fed_asi.strategies.places import base_of


def damping(staleness: int, power: float) -> float:
    """Return how much of its move a stale update keeps, 0 to 1. staleness: how many updates were made meanwhile.

    Source: Nguyen et al. 2022 (arXiv 2106.06639), whose experiments have 1 / sqrt(1 + staleness): power 1/2.
    """
    return float((1.0 + staleness) ** -power)


def brought_up(update: Update, began: Weights, now: Weights, share: float) -> Update:
    """Return the update as if its device had begun from the weights of now: its move, times a share, added to them.

    began: the weights that it was sent. So every strategy, which sees what devices moved as the difference to the
    weights of now, sees the move that was really made. Float64, rounded once to the tensor's type.
    Source: Nguyen et al. 2022 (arXiv 2106.06639), algorithm 1.
    """
    tensors = {}
    for name, trained in update.tensors.items():
        start, base = (base_of(update, name, weights[name]) for weights in (began, now))
        tensors[name] = rounded(base + share * (trained.to(torch.float64) - start), trained)
    return replace(update, tensors=tensors)
