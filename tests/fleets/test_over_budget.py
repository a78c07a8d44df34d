"""What follows a plan over its budget: each policy's tries, never one that failed before, and your own policies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.errors import ConfigError
from fed_asi.fleets import over_budget
from fed_asi.fleets.over_budget import Offer, Try
from fed_asi.fleets.resources import Resources

BUILT_IN = ["exclude", "fewer-layers", "lower-ranks", "smaller-micro-batch"]
HAS = Resources(budget_bytes=800, batch_size=16, micro_batch=8)
OFFER = Offer(body_layers=3, micro_batches=(1, 2, 4, 8, 16), grid="published")


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("exclude", []),
        ("fewer-layers", [Try(HAS, "published", count) for count in (2, 1, 0)]),
        ("smaller-micro-batch", [Try(replace(HAS, micro_batch=b), "published") for b in (4, 2, 1)]),
        ("lower-ranks", [Try(replace(HAS, budget_bytes=100 * n), "exact") for n in (7, 6, 5, 4, 3, 2, 1)]),
    ],
)
def test_what_each_policy_tries(policy: str, expected: list[Try]) -> None:
    assert list(over_budget.tries(policy, HAS, OFFER)) == expected


budgets = st.none() | st.integers(1, 2**40)
offers = st.builds(
    Offer,
    st.integers(0, 20),
    st.sets(st.integers(1, 64), min_size=1).map(lambda sizes: tuple(sorted(sizes))),
    st.sampled_from(["exact", "published"]),
)


@given(st.builds(Resources, budgets, st.integers(1, 64), st.none() | st.integers(1, 64)), offers)
def test_no_policy_repeats_the_plan_that_failed_or_any_other(has: Resources, offer: Offer) -> None:
    for policy in BUILT_IN:
        tries = over_budget.tries(policy, has, offer)
        assert Try(has, offer.grid) not in tries
        assert len(set(tries)) == len(tries)
        for one in tries:
            assert replace(one.resources, budget_bytes=None, micro_batch=None) == Resources(
                None, has.batch_size
            )
            if has.budget_bytes is not None:
                assert 0 < (one.resources.budget_bytes or 0) <= has.budget_bytes


def test_the_profile_must_know_more_micro_batches_for_one_policy_alone() -> None:
    assert [name for name in BUILT_IN if over_budget.goes_smaller(name)] == ["smaller-micro-batch"]


def test_a_policy_of_ones_own(own_names: None) -> None:
    def half_the_batch(resources: Resources, offer: Offer) -> list[Try]:
        return [Try(replace(resources, batch_size=resources.batch_size // 2), offer.grid)]

    over_budget.register("half-the-batch", half_the_batch, smaller=True)
    assert over_budget.tries("half-the-batch", HAS, OFFER)[0].resources.batch_size == 8
    assert over_budget.goes_smaller("half-the-batch")
    assert over_budget.names() == sorted([*BUILT_IN, "half-the-batch"])


@pytest.mark.parametrize("ask", [lambda name: over_budget.tries(name, HAS, OFFER), over_budget.goes_smaller])
def test_an_unknown_policy_gets_the_nearest_ones(ask) -> None:
    with pytest.raises(
        ConfigError, match="unknown over-budget policy 'fewer-layer'; did you mean fewer-layers"
    ):
        ask("fewer-layer")
