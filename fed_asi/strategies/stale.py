"""Stale updates: those of devices that began from weights that have changed since.

As in FedBuff (Nguyen et al. 2022, arXiv 2106.06639), a device's change is measured from the weights that it was sent.
The change of a reply that is s updates old is scaled by 1 / sqrt(1 + s). The changes of a number of replies are summed
and divided by a number that does not depend on staleness, and the server steps by the result. FLSim, the simulator of
its authors, does this in its HybridAggregator with PolynomialStalenessWeight.
Differences: changes are weighted by images, as everywhere here, where the paper divides by the number of replies (the
same for shards of one size); the server's step is that of the strategy, so plain averaging has a learning rate of 1;
FLSim does not weight by staleness by default, and if it does, relative to the weight of a staleness of 1.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from fed_asi.strategies.aggregate import Update, Weights
from fed_asi.strategies.base import rounded
from fed_asi.strategies.places import base_of


def damping(staleness: int, power: float) -> float:
    """Return the share of its change that a stale update keeps, 0 to 1. staleness: updates made in the meantime.

    Source: Nguyen et al. 2022 (arXiv 2106.06639), with (1 + staleness)^-0.5.
    """
    return float((1.0 + staleness) ** -power)


def brought_up(update: Update, began: Weights, now: Weights, share: float) -> Update:
    """Return the update as if its device had begun from the current weights: its change, scaled, added to them.

    began: the weights that it was sent. A strategy measures changes from the current weights, so this way it sees the
    change that was really made. Float64, rounded once to the tensor's type.
    """
    tensors = {}
    for name, trained in update.tensors.items():
        start, base = (base_of(update, name, weights[name]) for weights in (began, now))
        tensors[name] = rounded(base + share * (trained.to(torch.float64) - start), trained)
    return replace(update, tensors=tensors)
