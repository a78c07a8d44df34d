"""Seconds and joules of a task, worked out by hand, and of one that is broken off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.errors import ConfigError
from fed_asi.fleets.clock import PARTS, Spent, Task, joules_of, seconds_of, spent
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Work

DEVICE = Hardware(
    "toy",
    dense_per_second=100.0,
    depthwise_per_second=10.0,
    elements_per_second=50.0,
    bytes_per_second=200.0,
    call_seconds=0.5,
    down_bits_per_second=80.0,
    up_bits_per_second=40.0,
    latency_seconds=0.25,
    compute_watts=2.0,
    radio_watts=3.0,
)
TASK = Task(20, Work(calls=2), Work(200, 10, 50, 100, 1), Work(100), 10)


def test_a_task_by_hand() -> None:
    found = spent(TASK, DEVICE)
    assert found.download_seconds == 0.25 + 160 / 80
    assert found.upload_seconds == 0.25 + 80 / 40
    assert (found.trunk_seconds, found.judging_seconds) == (1.0, 1.0)
    assert found.step_seconds == 2.0 + 1.0 + 1.0 + 0.5 + 0.5
    assert found.sim_seconds == 2.25 + 1 + 5 + 1 + 2.25
    assert found.energy_joules == 3 * 2.25 * 2 + 2 * 7
    assert sum(found.columns()[f"{part}_seconds"] or 0 for part in PARTS) == found.sim_seconds


def test_joules_by_what_is_done_where_that_is_known() -> None:
    device = Hardware(mac_joules=2.0, byte_joules=0.5, compute_watts=1000.0)
    assert joules_of(Work(3, 4, 0, 10), 99.0, device) == 2 * 7 + 5


def test_without_power_there_are_no_joules() -> None:
    bare = Hardware("bare", **{key: getattr(DEVICE, key) for key in ("dense_per_second", "depthwise_per_second",
        "elements_per_second", "bytes_per_second", "call_seconds", "down_bits_per_second", "up_bits_per_second",
        "latency_seconds")})  # fmt: skip
    found = spent(TASK, bare)
    assert (found.energy_joules, found.sim_seconds) == (None, spent(TASK, DEVICE).sim_seconds)


def test_a_device_without_rates_has_no_clock() -> None:
    with pytest.raises(ConfigError, match="does not say dense_per_second"):
        spent(TASK, Hardware("half", call_seconds=0.0))


def test_a_slower_device_takes_longer_in_the_ratio_of_its_rates() -> None:
    work = Work(1000, 0, 0, 0, 0)
    assert seconds_of(work, DEVICE) == 10.0


@given(st.floats(0, 20))
def test_a_task_broken_off_has_spent_the_time_until_then(seconds: float) -> None:
    whole = spent(TASK, DEVICE)
    found = whole.until(seconds)
    assert found.sim_seconds == pytest.approx(min(seconds, whole.sim_seconds))
    assert (found.energy_joules or 0) <= (whole.energy_joules or 0) + 1e-9
    assert whole.until(whole.sim_seconds + 1) == whole


def test_a_part_broken_off_in_the_middle() -> None:
    found = spent(TASK, DEVICE).until(2.25 + 1 + 2)
    assert (found.download_seconds, found.trunk_seconds, found.step_seconds) == (2.25, 1.0, 2.0)
    assert (found.judging_seconds, found.upload_seconds) == (0.0, 0.0)
    assert found.step_joules == pytest.approx(4.0)


def test_nothing_takes_no_time() -> None:
    assert Spent(0.0, 0.0, 0.0, 0.0, 0.0).sim_seconds == 0.0
