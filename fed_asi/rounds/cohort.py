"""Which devices a round asks."""

from __future__ import annotations

from collections.abc import Iterable

from fed_asi import seeds


def sample_cohort(seed: int, round: int, partition_ids: Iterable[int], size: int) -> list[int]:
    """Return the sorted partition ids asked in a round, a pure function of seed, round and fleet."""
    known = sorted(partition_ids)
    rng = seeds.rng(seed, "cohort", round)
    return sorted(int(i) for i in rng.choice(known, size=min(size, len(known)), replace=False))
