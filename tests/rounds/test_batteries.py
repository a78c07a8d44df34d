"""Batteries: full at first, drained by rounds, charged in between, never above full or below empty."""

from __future__ import annotations

import math

from fed_asi.fleets import fleet
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.rounds.batteries import Batteries
from runs import small

PHONE = {"preset": "snapdragon-410", "battery_joules": 100.0, "charge_watts": 2.0}


def batteries() -> Batteries:
    told = [PHONE, {**PHONE, "charge_watts": 0.0}, "raspberry-pi-5"]
    groups = [
        {"name": str(i), "count": 1, "budget": "unlimited", "device": one} for i, one in enumerate(told)
    ]
    return Batteries(fleet.build(small(groups=groups, cohort=3)))


def row(partition_id: int, joules: float | None, seconds: float = 10.0) -> DeviceRoundRecord:
    return DeviceRoundRecord(1, partition_id, "trained", sim_seconds=seconds, energy_joules=joules)


def test_what_is_drained_and_charged() -> None:
    found = batteries()
    assert found.any
    assert [found.held(one, 50.0) for one in range(3)] == [100.0, 100.0, math.inf]
    found.take_(50.0, [row(0, 90.0), row(1, 90.0), row(2, 1e9)])
    assert [found.held(one, 60.0) for one in range(3)] == [10.0, 10.0, math.inf]
    assert (found.held(0, 80.0), found.held(1, 80.0), found.held(0, 1e6)) == (50.0, 10.0, 100.0)
    assert found.enough(60.0).tolist() == [False, False, True]
    assert found.enough(65.0).tolist() == [True, False, True]
    assert found.ready(60.0).tolist() == [65.0, math.inf, 60.0]
    found.take_(60.0, [row(0, 500.0), row(1, None)])
    assert found.held(0, 70.0) == 0.0
    assert found.held(1, 70.0) == 10.0


def test_a_fleet_on_mains_has_none() -> None:
    found = Batteries(fleet.build(small()))
    assert not found.any
    assert found.enough(1e9).all()
    assert set(found.ready(5.0).tolist()) == {5.0}
