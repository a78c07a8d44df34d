"""Which training images a run needs, in the order in which its rounds need them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_asi.data.shards import Shards
from fed_asi.fleets.cohort import asks_by_number, cohort_of
from fed_asi.fleets.config import RunConfig
from fed_asi.workplace.shard import Rows, shard_of

Taken = Sequence[int] | NDArray[np.int16]  # each device's resolution, by partition_id


@dataclass(frozen=True, slots=True)
class Needs:
    """Rows of the training images, each once. first: needed before the first round. later: all others, in order.

    Images in neither are not needed at all.
    """

    first: Rows
    later: Rows

    @property
    def rows(self) -> Rows:
        """All rows, in the order in which they are needed."""
        return np.concatenate([self.first, self.later])


def needs_of(config: RunConfig, shards: Shards, taken: Taken | None = None, after: int = 0) -> Needs:
    """Return what a run needs at the resolution of its config: images of its cohorts, and those that groups hold out.

    Held-out images are needed first if groups are evaluated before the first round, or else last. If the clock or
    presence decides which devices a round asks, that is not known in advance: any device may be asked, and none is
    first. taken: None: all devices train at this resolution; otherwise those that do not need nothing here.
    after: the last round that is recorded; a run that resumes needs nothing for it and those before.
    """
    here = [
        one for one in range(config.num_devices) if taken is None or taken[one] == config.model.resolution
    ]
    when = config.measure.groups
    judged = [] if when == "never" else _held_back(config, shards, here)
    if asks_by_number(config) and config.clock.at_work is None:
        among = {*here}
        left = range(min(after, config.rounds - 1) + 1, config.rounds + 1)
        begin, *others = [[one for one in cohort_of(config, round) if one in among] for round in left]
    else:
        begin, others = [], [here]
    first = _once([*(judged if when == "every-round" else ()), *_of(shards, begin)])
    later = _once([first, *(rows for cohort in others for rows in _of(shards, cohort)), *judged])
    return Needs(first, later[len(first) :])


def _held_back(config: RunConfig, shards: Shards, partition_ids: Iterable[int]) -> list[Rows]:
    if not config.data.holdout:
        return []
    return [shard_of(config, shards, one).holdout for one in partition_ids]


def _of(shards: Shards, partition_ids: Iterable[int]) -> list[Rows]:
    return [shards[one] for one in partition_ids]


def _once(parts: Sequence[Rows]) -> Rows:
    """Return rows in the order in which each occurs first."""
    rows = np.concatenate([np.zeros(0, np.int64), *parts])
    return rows[np.sort(np.unique(rows, return_index=True)[1])]
