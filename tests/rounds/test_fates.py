"""The outcome of a device's round, by hand and for any limits: one end, one cause, and no second too many."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.fleets.clock import Spent
from fed_asi.rounds.fates import Fate, Limits, cut_off, fate
from runs import job

WHOLE = Spent(10.0, 20.0, 30.0, 5.0, 15.0, 1.0, 4.0, 6.0, 1.0, 3.0)  # 80 s, 15 J
JOB = job()


@pytest.mark.parametrize(
    ("limits", "outcome", "ends", "cause"),
    [
        (Limits(100.0), None, 180.0, None),
        (Limits(100.0, deadline=80.0), None, 180.0, None),
        (Limits(100.0, deadline=79.0), "late", 179.0, "it needs 80.0 s, and the deadline is 79.0 s"),
        (Limits(100.0, leaves=150.0), "left", 150.0, "it left after 50.0 s of 80.0 s"),
        (
            Limits(100.0, leaves=105.0),
            "absent",
            105.0,
            "it left after 5 s of 80.0 s, before it had the model",
        ),
        (
            Limits(100.0, deadline=40.0, leaves=150.0),
            "late",
            140.0,
            "it needs 80.0 s, and the deadline is 40.0 s",
        ),
        (Limits(100.0, battery=8.0), "left", 145.0, "its battery was empty after 45.0 s of 80.0 s"),
        (
            Limits(100.0, battery=0.5),
            "absent",
            105.0,
            "its battery was empty after 5 s of 80.0 s, before it had the model",
        ),
        (Limits(100.0, battery=15.0), None, 180.0, None),
        (Limits(100.0, deadline=60.0, absent="asleep"), "absent", 160.0, "asleep"),
    ],
)
def test_by_hand(limits: Limits, outcome: str | None, ends: float, cause: str | None) -> None:
    found = fate(JOB, WHOLE, limits)
    assert (found.outcome, found.ends, found.cause) == (outcome, pytest.approx(ends), cause)


@given(st.floats(0, 200), st.floats(0, 200), st.floats(0, 30))
def test_what_was_spent_is_what_there_was_time_and_power_for(
    deadline: float, stays: float, battery: float
) -> None:
    found = fate(JOB, WHOLE, Limits(7.0, deadline, 7.0 + stays, battery))
    assert found.spent is not None
    assert found.spent.sim_seconds == pytest.approx(found.ends - 7.0)
    assert found.spent.sim_seconds <= min(deadline, stays) + 1e-9
    assert (found.spent.energy_joules or 0.0) <= battery + 1e-9
    assert (found.outcome is None) == (found.cause is None) == (found.spent == WHOLE)


def test_a_device_without_a_clock_replies_at_once() -> None:
    assert fate(JOB, None, Limits(3.0, deadline=1.0)) == Fate(JOB, None, 3.0)


def test_a_round_that_ends_cuts_off_who_is_still_at_it() -> None:
    slow = fate(JOB, WHOLE, Limits(100.0))
    found = cut_off(slow, 100.0, 150.0, 10)
    assert (found.outcome, found.cause) == ("late", "the round ended after 50.0 s with 10 replies")
    assert found.spent is not None
    assert found.spent.sim_seconds == pytest.approx(50.0)
    gone = fate(JOB, WHOLE, Limits(100.0, leaves=120.0))
    assert cut_off(gone, 100.0, 150.0, 10) == gone
    later = cut_off(fate(JOB, WHOLE, Limits(100.0, leaves=170.0)), 100.0, 150.0, 10)
    assert later.outcome == "late"


def test_a_battery_lasts_until_it_is_empty() -> None:
    assert WHOLE.lasts(15.0) == math.inf
    assert WHOLE.lasts(1.0) == pytest.approx(10.0)
    assert WHOLE.lasts(0.0) == 0.0
    assert Spent(1.0, 1.0, 1.0, 1.0, 1.0).lasts(0.0) == math.inf  # nobody knows what it draws
