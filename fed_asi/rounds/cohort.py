"""Which devices a round asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fed_asi import seeds


def sample_cohort(
    seed: int, round: int, partition_ids: Sequence[int] | NDArray[np.int64], size: int
) -> list[int]:
    """Return the sorted partition ids asked in a round, a pure function of seed, round and fleet."""
    known = np.asarray(partition_ids, dtype=np.int64)
    if (known[1:] < known[:-1]).any():  # to sort what is sorted takes milliseconds in a large fleet
        known = np.sort(known)
    rng = seeds.rng(seed, "cohort", round)
    return sorted(int(i) for i in rng.choice(known, size=min(size, len(known)), replace=False))
