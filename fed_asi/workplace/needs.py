"""Which training images a run needs, in the order in which its rounds come to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fed_asi.data.shards import Shards
from fed_asi.fleets.cohort import asks_by_number, cohort_of
from fed_asi.fleets.config import RunConfig
from fed_asi.workplace.shard import Rows, shard_of


@dataclass(frozen=True, slots=True)
class Needs:
    """Rows of the training images, each once. first: those to begin with. later: the others, the soonest first.

    Images in neither are never looked at.
    """

    first: Rows
    later: Rows

    @property
    def rows(self) -> Rows:
        """All of them, the soonest first."""
        return np.concatenate([self.first, self.later])


def needs_of(config: RunConfig, shards: Shards) -> Needs:
    """Return what a run needs: the images of its cohorts, and those that groups are judged by.

    These come first where groups are judged before the first round, else last.
    Where whom a round asks is decided by the clock or by who is there, nobody knows it before: anyone may be asked, and
    no cohort is first.
    """
    when = config.measure.groups
    judged = [] if when == "never" else _held_back(config, shards)
    if asks_by_number(config) and config.clock.at_work is None:
        begin, *others = [cohort_of(config, round) for round in range(1, config.rounds + 1)]
    else:
        begin, others = [], [list(range(config.num_devices))]
    first = _once([*(judged if when == "every-round" else ()), *_of(shards, begin)])
    later = _once([first, *(rows for cohort in others for rows in _of(shards, cohort)), *judged])
    return Needs(first, later[len(first) :])


def _held_back(config: RunConfig, shards: Shards) -> list[Rows]:
    if not config.data.holdout:
        return []
    return [shard_of(config, shards, one).holdout for one in range(config.num_devices)]


def _of(shards: Shards, partition_ids: Iterable[int]) -> list[Rows]:
    return [shards[one] for one in partition_ids]


def _once(parts: Sequence[Rows]) -> Rows:
    """Return rows in the order in which each is met first."""
    rows = np.concatenate([np.zeros(0, np.int64), *parts])
    return rows[np.sort(np.unique(rows, return_index=True)[1])]
