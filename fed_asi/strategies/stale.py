"""What becomes of an update whose device began from weights that have moved on since.

As in FedBuff (Nguyen et al. 2022, arXiv 2106.06639): a device moves from the weights that it was sent; a reply that is
s updates old counts with 1 / sqrt(1 + s) of its move; the moves of so many replies are added up and divided by a number
that does not depend on staleness, and the server steps by that. FLSim, its authors' simulator, does so in its
HybridAggregator, with PolynomialStalenessWeight.
Not as there: moves are weighted by images, as everywhere here, where the paper divides by the number of replies (with
shards of one size it is the same); the server's step is the strategy's, so plain averaging has a learning rate of 1;
FLSim weighs nothing by staleness unless it is told to, and then in relation to the weight of a staleness of 1.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from fed_asi.strategies.aggregate import Update, Weights
from fed_asi.strategies.base import rounded
from fed_asi.strategies.places import base_of


def damping(staleness: int, power: float) -> float:
    """Return how much of its move a stale update keeps, 0 to 1. staleness: how many updates were made meanwhile.

    Source: Nguyen et al. 2022 (arXiv 2106.06639), which have (1 + staleness)^-0.5.
    """
    return float((1.0 + staleness) ** -power)


def brought_up(update: Update, began: Weights, now: Weights, share: float) -> Update:
    """Return the update as if its device had begun from the weights of now: its move, times a share, added to them.

    began: the weights that it was sent. So every strategy, which sees what devices moved as the difference to the
    weights of now, sees the move that was really made. Float64, rounded once to the tensor's type.
    """
    tensors = {}
    for name, trained in update.tensors.items():
        start, base = (base_of(update, name, weights[name]) for weights in (began, now))
        tensors[name] = rounded(base + share * (trained.to(torch.float64) - start), trained)
    return replace(update, tensors=tensors)
