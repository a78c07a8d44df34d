"""What a run needs of the images, and in which order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fed_asi.data.shards import Shards
from fed_asi.fleets.cohort import cohort_of
from fed_asi.fleets.config import RunConfig
from fed_asi.workplace.needs import needs_of
from fed_asi.workplace.shard import shard_of
from runs import small

FEW = {"rounds": 3, "cohort": 2, "data": {"holdout": 0.2}}
ALL = [{"name": "all", "count": 20, "budget": None}]


def shards(devices: int = 20, each: int = 10) -> Shards:
    indices = np.random.default_rng(0).permutation(devices * each).astype(np.int64)
    return Shards(indices, np.arange(0, devices * each + 1, each, dtype=np.int64))


def fleet(**changes: Any) -> RunConfig:
    return small(**{**FEW, "groups": ALL, **changes})


def of(held: Shards, ids: list[int]) -> list[int]:
    return [int(row) for one in ids for row in held[one]]


def test_rows_come_round_after_round_each_once_and_those_of_nobody_asked_never() -> None:
    config, held = fleet(measure={"groups": "never"}), shards()
    needs, cohorts = needs_of(config, held), [cohort_of(config, number) for number in (1, 2, 3)]
    assert needs.first.tolist() == of(held, cohorts[0])
    expected = list(dict.fromkeys(row for cohort in cohorts for row in of(held, cohort)))
    assert needs.rows.tolist() == expected
    assert len(expected) < 200


def test_a_run_that_resumes_needs_nothing_for_what_is_recorded() -> None:
    config, held = fleet(measure={"groups": "never"}), shards()
    asked = [of(held, cohort_of(config, number)) for number in (1, 2, 3)]
    for after in (1, 2):
        needs = needs_of(config, held, after=after)
        assert needs.first.tolist() == asked[after]
        assert needs.rows.tolist() == list(dict.fromkeys(row for rows in asked[after:] for row in rows))
    assert len(needs_of(config, held, after=1).rows) < len(needs_of(config, held).rows)
    done = needs_of(config, held, after=3)  # all that may still happen is that its last round is repeated
    assert done.rows.tolist() == asked[2]
    always = needs_of(fleet(measure={"groups": "every-round"}), held, after=1)
    back = [int(row) for one in range(20) for row in shard_of(config, held, one).holdout]
    assert always.first.tolist() == list(dict.fromkeys([*back, *asked[1]]))


def test_what_groups_are_judged_by_comes_when_they_are() -> None:
    held = shards()
    back = [int(row) for one in range(20) for row in shard_of(fleet(), held, one).holdout]
    asked = [of(held, cohort_of(fleet(), number)) for number in (1, 2, 3)]
    assert len(back) == 40
    always = needs_of(fleet(measure={"groups": "every-round"}), held)
    assert always.first.tolist() == list(dict.fromkeys([*back, *asked[0]]))
    ends = needs_of(fleet(measure={"groups": "ends"}), held)
    assert ends.first.tolist() == asked[0]
    assert ends.rows.tolist() == list(dict.fromkeys([row for rows in asked for row in rows] + back))
    assert set(ends.rows.tolist()) == set(always.rows.tolist())
    assert len(set(ends.rows.tolist())) == len(ends.rows)


@pytest.mark.parametrize("clock", [{}, {"among": "all"}])
def test_where_the_clock_decides_whom_a_round_asks_anyone_may_be_needed(clock: dict[str, Any]) -> None:
    groups = [{**ALL[0], "presence": "daily"}]
    config = fleet(groups=groups, clock=clock, measure={"groups": "never"})
    needs, held = needs_of(config, shards()), shards()
    if clock:
        assert needs.first.tolist() == of(held, cohort_of(config, 1))
    else:
        assert needs.first.tolist() == []
        assert needs.rows.tolist() == of(held, list(range(20)))


def test_more_are_asked_where_only_the_first_to_reply_count() -> None:
    config = fleet(clock={"ask": 4, "among": "all"}, measure={"groups": "never"})
    assert needs_of(config, shards()).first.tolist() == of(shards(), cohort_of(config, 1))
    assert len(cohort_of(config, 1)) == 4


def test_a_shard_is_cut_in_two_and_keeps_one_to_train_on() -> None:
    held = shards(2, 5)
    whole = shard_of(fleet(data={"holdout": 0.0}), held, 1)
    assert (whole.train.tolist(), whole.holdout.tolist()) == (sorted(held[1].tolist()), [])
    half = shard_of(fleet(data={"holdout": 0.4}), held, 1)
    assert len(half.holdout) == 2
    assert sorted([*half.train.tolist(), *half.holdout.tolist()]) == sorted(held[1].tolist())
    assert len(shard_of(fleet(data={"holdout": 0.9}), shards(2, 1), 0).train) == 1
