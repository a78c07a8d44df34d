"""Devices and their resources, round by round."""

from __future__ import annotations

import pytest

from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import DeviceConfig, GroupConfig, RunConfig
from fed_asi.fleets.file import load_config
from fed_asi.fleets.resources import BudgetChange, Resources
from fleet_file import GOOD


def config(**changes) -> RunConfig:
    changes.setdefault("groups", (GroupConfig(name="a", count=3, budget=1000),))
    return RunConfig(name="x", cohort=1, rounds=9, **changes)


def test_budget_follows_its_schedule():
    changes = (BudgetChange(round=5, budget=200), BudgetChange(round=3, budget=None))
    group = GroupConfig(name="a", count=1, budget=100, schedule=changes)
    device = fleet.build(config(groups=(group,)))[0]
    assert [device.resources_at(at).budget_bytes for at in range(1, 8)] == [
        100, 100, None, None, 200, 200, 200,
    ]  # fmt: skip
    assert {resources.batch_size for _, resources in device.phases} == {32}


def test_a_budget_of_its_own_leaves_the_groups_schedule():
    group = GroupConfig(name="a", count=2, budget=100, schedule=(BudgetChange(round=2, budget=50),))
    built = fleet.build(config(groups=(group,), devices=(DeviceConfig(partition_id=1, budget=70),)))
    assert [device.resources_at(3).budget_bytes for device in built] == [50, 70]


def test_a_smaller_batch_keeps_the_micro_batch_inside():
    group = GroupConfig(name="a", count=1, budget=100, batch_size=32, micro_batch=16)
    own = DeviceConfig(partition_id=0, budget=100, batch_size=4)
    device = fleet.build(config(groups=(group,), devices=(own,)))[0]
    assert device.resources == Resources(100, 4, 4)


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


def test_a_line_gives_the_budget_alone_and_a_device_the_rest():
    """A line leaves the group's schedule too; a device after it has the last word."""
    schedule = (BudgetChange(round=2, budget=5),)
    group = GroupConfig(name="a", count=3, budget=100, batch_size=8, micro_batch=2, schedule=schedule)
    own = DeviceConfig(partition_id=2, budget=None, micro_batch=4)
    built = fleet.build(config(groups=(group,), budgets={1: 70, 2: 60}, devices=(own,)))
    assert [device.resources_at(1) for device in built] == [
        Resources(100, 8, 2),
        Resources(70, 8, 2),
        Resources(None, 8, 4),
    ]
    assert [device.resources_at(2).budget_bytes for device in built] == [5, 70, None]


def test_a_device_outside_is_named():
    with pytest.raises(ConfigError, match=r"\[7\] are not in the fleet, which has 0 to 2"):
        fleet.build(config(budgets={7: 5}))


def test_fleet_follows_groups_lines_and_devices(write):
    devices = "[budgets]\n0 = 9000\n2 = 8000\n[[devices]]\npartition_id = 2\nbudget = 7000\nbatch_size = 2\n"
    built = fleet.build(load_config(write(GOOD + devices), cpus=4))
    assert [device.partition_id for device in built] == [0, 1, 2, 3, 4]
    assert [device.group for device in built] == ["tight", "tight", "roomy", "roomy", "roomy"]
    assert [device.resources.budget_bytes for device in built] == [9000, 65536, 7000, None, None]
    assert (built[2].resources.batch_size, built[0].resources.micro_batch) == (2, 4)
