"""Presence: a device that is present stays so until it leaves, and presence over a week is not stored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.fleets.device_keys import PresenceConfig
from fed_asi.fleets.presence import DAY, HOUR, rule_of, uniform

TRACE = "device,start,end\na,0,100\na,300,500\nb,50,500\nc,200,300\n"
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "always": {"kind": "always"},
    "random": {"kind": "random", "share": 0.3, "period_seconds": 600.0},
    "all": {"kind": "random", "share": 1.0},
    "daily": {"kind": "daily", "zones": (0.0, -5.0, 8.5), "share": 0.7},
    "whole days": {"kind": "daily", "from_hour": 0.0, "until_hour": 24.0, "share": 0.5},
    "traced": {"kind": "trace"},
}


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("trace") / "a.csv"
    path.write_text(TRACE)
    return str(path)


def config(name: str, trace: str) -> PresenceConfig:
    said = DESCRIPTIONS[name]
    return PresenceConfig.model_validate({**said, "trace": trace} if said["kind"] == "trace" else said)


@pytest.mark.few(2)
@pytest.mark.parametrize("name", DESCRIPTIONS)
@given(seed=st.integers(0, 2**62), one=st.integers(0, 10**6), eighths=st.integers(0, int(8 * 20 * DAY)))
def test_leaving_and_coming_are_where_presence_changes(
    trace: str, name: str, seed: int, one: int, eighths: int
) -> None:
    """The oracle is `present` itself, asked at many moments."""
    rule, ids, at = rule_of(config(name, trace), seed), np.array([one]), eighths / 8
    there = bool(rule.present(ids, at)[0])
    comes = rule.first(ids, np.array([at]))
    assert (comes == at) == there
    if there:
        leaves = rule.leaves(one, at)
        assert leaves > at
        end = min(leaves, at + 3 * DAY)
        assert all(rule.present(ids, t)[0] for t in np.linspace(at, end, 40, endpoint=False))
        assert leaves == math.inf or not rule.present(ids, leaves + 1e-3)[0]
    else:
        assert comes > at
        assert not any(
            rule.present(ids, t)[0]
            for t in np.linspace(at, min(comes, at + 9 * DAY), 40, endpoint=False)[:-1]
        )
        assert comes == math.inf or rule.present(ids, comes + 1e-3)[0]


def test_a_share_is_there_each_draw_by_itself() -> None:
    rule, ids = rule_of(PresenceConfig(kind="random", share=0.3), 5), np.arange(20000)
    first, second = rule.present(ids, 0.0), rule.present(ids, HOUR)
    assert abs(first.mean() - 0.3) < 0.015
    assert abs((first & second).mean() - 0.09) < 0.01
    assert (rule.present(ids, 1800.0) == first).all()
    other = rule_of(PresenceConfig(kind="random", share=0.3), 6).present(ids, 0.0)
    assert abs((first & other).mean() - 0.09) < 0.01


def test_hashes_are_uniform_and_know_seed_device_and_period() -> None:
    found = uniform(3, np.arange(50000), 7)
    assert abs(found.mean() - 0.5) < 0.01
    assert np.histogram(found, 10, (0, 1))[0].min() > 4500
    assert uniform(3, np.array([5]), 7) != uniform(3, np.array([7]), 5)


def test_a_night_is_where_the_device_is() -> None:
    east = rule_of(PresenceConfig(kind="daily", zones=(8.0,)), 0)
    ids = np.array([0])
    assert [bool(east.present(ids, hour * HOUR)[0]) for hour in (13, 14, 21, 22, 3)] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert east.leaves(0, 14 * HOUR) == 22 * HOUR
    assert east.first(ids, np.array([3 * HOUR])) == 14 * HOUR


@pytest.mark.few(2)
@pytest.mark.parametrize("name", DESCRIPTIONS)
@given(
    seed=st.integers(0, 2**62),
    eighths=st.lists(st.integers(0, int(8 * 20 * DAY)), min_size=1, max_size=30),
)
def test_the_first_of_many_is_the_first_of_each(trace: str, name: str, seed: int, eighths: list[int]) -> None:
    rule, at = rule_of(config(name, trace), seed), np.array(eighths) / 8
    ids = np.arange(len(at)) * 7
    each = [rule.first(ids[i : i + 1], at[i : i + 1]) for i in range(len(at))]
    assert rule.first(ids, at) == min(each)
    assert rule.first(ids[:0], at[:0]) == math.inf
