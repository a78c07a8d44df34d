"""Which devices a round asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fed_asi import seeds
from fed_asi.fleets.config import RunConfig


def sample_cohort(
    seed: int, round: int, partition_ids: Sequence[int] | NDArray[np.int64], size: int
) -> list[int]:
    """Return the sorted partition ids asked in a round, a pure function of seed, round and fleet."""
    known = np.asarray(partition_ids, dtype=np.int64)
    if (known[1:] < known[:-1]).any():  # to sort what is sorted takes milliseconds in a large fleet
        known = np.sort(known)
    rng = seeds.rng(seed, "cohort", round)
    return sorted(int(i) for i in rng.choice(known, size=min(size, len(known)), replace=False))


def asks_by_number(config: RunConfig) -> bool:
    """Return whether the devices that a round asks depend only on seed and round, not on the time."""
    owners = [*config.groups, *config.devices]
    return config.clock.among == "all" or not any(one.presence or one.device for one in owners)


def cohort_of(config: RunConfig, round: int) -> list[int]:
    """Return the sorted partition ids that a round asks, in a run for which `asks_by_number` is true."""
    return sample_cohort(config.seed, round, range(config.num_devices), config.clock.ask or config.cohort)
