"""A device's rows of the training images: those it trains on, and those held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_asi import seeds
from fed_asi.data.shards import Shards
from fed_asi.fleets.config import RunConfig

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shard:
    """A device's rows: those it trains on, and those held out for its local accuracy."""

    train: Rows
    holdout: Rows


def shard_of(config: RunConfig, shards: Shards, partition_id: int) -> Shard:
    """Return a device's rows; the held-out rows are drawn once, and at least one row is left for training."""
    rows = shards[partition_id]
    held = min(int(len(rows) * config.data.holdout), len(rows) - 1)
    if not held:
        return Shard(np.sort(rows), rows[:0])  # whatever the draw
    order = seeds.rng(config.seed, "holdout", partition_id).permutation(rows)
    return Shard(np.sort(order[held:]), np.sort(order[:held]))
