"""Devices and their budgets, round by round."""

from __future__ import annotations

import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import BudgetChange, DeviceConfig, GroupConfig, RunConfig


def config(**changes) -> RunConfig:
    changes.setdefault("groups", (GroupConfig(name="a", count=3, budget=1000),))
    return RunConfig(name="x", cohort=1, rounds=9, **changes)


def test_budget_follows_its_schedule():
    changes = (BudgetChange(round=5, budget=200), BudgetChange(round=3, budget=None))
    group = GroupConfig(name="a", count=1, budget=100, schedule=changes)
    device = fleet.build(config(groups=(group,)))[0]
    assert [device.budget_at(at) for at in range(1, 8)] == [100, 100, None, None, 200, 200, 200]


def test_a_budget_of_its_own_leaves_the_groups_schedule():
    group = GroupConfig(name="a", count=2, budget=100, schedule=(BudgetChange(round=2, budget=50),))
    built = fleet.build(config(groups=(group,), devices=(DeviceConfig(partition_id=1, budget=70),)))
    assert [built[0].budget_at(3), built[1].budget_at(3)] == [50, 70]


def test_a_smaller_batch_keeps_the_micro_batch_inside():
    group = GroupConfig(name="a", count=1, budget=100, batch_size=32, micro_batch=16)
    own = DeviceConfig(partition_id=0, budget=100, batch_size=4)
    device = fleet.build(config(groups=(group,), devices=(own,)))[0]
    assert (device.batch_size, device.micro_batch) == (4, 4)


def test_groups_and_budgets_of_the_fleet():
    groups = (
        GroupConfig(name="z", count=2, budget=10, schedule=(BudgetChange(round=8, budget=5),)),
        GroupConfig(name="a", count=1, budget=None, batch_size=8, micro_batch=2),
    )
    built = fleet.build(config(groups=groups))
    assert {name: len(devices) for name, devices in built.groups().items()} == {"z": 2, "a": 1}
    assert list(built.groups()) == ["z", "a"]
    assert list(built.partition_ids) == [0, 1, 2]
    assert len(built) == 3


def test_a_device_outside_is_named():
    with pytest.raises(ConfigError, match=r"\[7\] are not in the fleet, which has 0 to 2"):
        fleet.build(config(budgets={7: 5}))
