"""Limits on the time of groups and devices, and fleets in which time cannot be counted."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fed_asi.fleets import fleet
from fed_asi.fleets.checks import check
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.pace import ANY_PACE, Pace, PaceKeys, pace_of
from fed_asi.fleets.pace_checks import asks_time
from fed_asi.workplace.address import run_fingerprint
from runs import small


def groups(**keys: Any) -> list[dict[str, Any]]:
    return [{"name": "a", "count": 6, "budget": "64 KiB", "batch_size": 16, **keys}]


def test_what_a_device_does_not_say_is_its_groups() -> None:
    group = pace_of(PaceKeys(max_seconds=9.0))
    assert group == Pace(9.0, None, quicker=True)
    assert pace_of(PaceKeys(), group) == group
    assert pace_of(PaceKeys(max_joules=2.0), group) == Pace(9.0, 2.0, quicker=True)
    assert pace_of(PaceKeys(max_seconds=3.0, quicker=False), group) == Pace(3.0, None, quicker=False)
    assert pace_of(PaceKeys()) == ANY_PACE
    assert not ANY_PACE.asks
    assert pace_of(PaceKeys(quicker=True)).asks


def test_a_fleet_hands_them_to_its_devices() -> None:
    config = small(
        groups=groups(device="stm32f746", max_seconds=60),
        devices=[{"partition_id": 4, "budget": "32 KiB", "max_joules": 5.0}],
        budgets={2: 9000},
    )
    built = fleet.build(config)
    assert [one.pace for one in built] == [Pace(60.0, None, True)] * 4 + [
        Pace(60.0, 5.0, True),
        Pace(60.0, None, True),
    ]
    assert check(config) == []
    assert asks_time(config)
    assert RunConfig.from_json(config.to_json()) == config


def test_a_run_that_asks_for_no_time_is_the_one_it_was() -> None:
    config = small()
    assert not asks_time(config)
    before = config.model_dump(mode="json")
    for owner in before["groups"]:
        for key in ("max_seconds", "max_joules", "quicker"):
            assert owner.pop(key) is None
    assert run_fingerprint(RunConfig.model_validate(before)) == run_fingerprint(config)
    assert run_fingerprint(config) == "72b2ab508ba9d6e7"
    assert run_fingerprint(small(groups=groups(quicker=True))) != run_fingerprint(small(groups=groups()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": groups(max_seconds=5.0)}, "max_seconds: 'a' has no clock"),
        ({"groups": groups(max_joules=5.0)}, "max_joules: 'a' has no clock"),
        ({"method": {"objective": "captured-per-second"}}, "method.objective: 'tight' has no clock"),
        (
            {
                "groups": groups(device={"preset": "stm32f746"}),
                "method": {"name": "asi", "objective": "captured-per-joule"},
            },
            "",
        ),
        (
            {
                "groups": groups(device="stm32f746"),
                "method": {"name": "asi-published", "objective": "captured-per-joule"},
            },
            'method.objective: "captured-per-joule" needs selection = "exact"',
        ),
        ({"groups": groups(quicker=True)}, ""),
    ],
)
def test_what_cannot_be_told_is_said_before_the_start(changes: dict[str, Any], said: str) -> None:
    problems = check(small(**changes))
    assert any(said in one for one in problems) if said else problems == []


def test_joules_need_power() -> None:
    rates = {f"{one}_per_second": 1e9 for one in ("dense", "depthwise", "elements", "bytes")}
    link = {
        "down_bits_per_second": 1e6,
        "up_bits_per_second": 1e6,
        "latency_seconds": 0.1,
        "call_seconds": 0.0,
    }
    found = check(small(groups=groups(device={**rates, **link}, max_joules=3.0, max_seconds=9.0)))
    (said,) = found
    assert said.startswith(
        "max_joules: 'a' does not say compute_watts, radio_watts, so its joules are unknown"
    )


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), "a minute", 1e13])
@pytest.mark.parametrize("key", ["max_seconds", "max_joules"])
def test_times_are_numbers_above_0(key: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        small(groups=groups(device="stm32f746", **{key: value}))


def test_devices_of_ram_and_flash_are_not_planned_with_time_yet() -> None:
    for key in ("ram", "flash"):
        (said,) = check(small(groups=groups(quicker=True, **{key: "320 KiB"})))
        assert said.startswith("quicker: 'a' has ram or flash")
    assert check(small(groups=groups(ram="320 KiB", device="stm32f746"))) == []
