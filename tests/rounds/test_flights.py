"""The event queue against the minimum of a list, and which devices may be asked meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.rounds.fates import Fate
from fed_asi.rounds.flights import Flight, Flights
from runs import job

DEVICES = 8


def flight(one: int, ends: float) -> Flight:
    return Flight(0.0, Fate(job(partition_id=one), None, ends))


@given(st.data())
def test_flights_end_in_the_order_of_a_sorted_list(data: st.DataObject) -> None:
    """Devices begin, land and turn out to take longer, in any order."""
    flights, known = Flights(DEVICES), dict[int, Flight]()
    for _ in range(data.draw(st.integers(1, 20))):
        what = data.draw(st.sampled_from(["begin", "land", "delay"]))
        first = min(known.values(), key=lambda one: one.order, default=None)
        assert flights.first == first
        ends = float(data.draw(st.integers(0, 4)))  # few, so that many end together
        free = sorted(set(range(DEVICES)) - known.keys())
        if what == "begin" and free:
            one = data.draw(st.sampled_from(free))
            known[one] = flight(one, ends)
            flights.begin(known[one])
        elif what == "land" and first is not None:
            assert flights.land() == known.pop(first.partition_id)
        elif what == "delay" and first is not None:
            known[first.partition_id] = flight(first.partition_id, first.fate.ends + 1.0 + ends)
            flights.delay(known[first.partition_id].fate)
        assert [*flights] == [known[one] for one in sorted(known)]
        assert len(flights) == len(known)


def test_who_has_landed_is_busy_until_the_next_update() -> None:
    flights = Flights(3)
    flights.begin(flight(2, 1.0))
    flights.begin(flight(0, 5.0))
    flights.land()
    assert flights.busy.tolist() == [True, False, True]
    flights.next_update()
    assert flights.busy.tolist() == [True, False, False]
    assert flights.first == flight(0, 5.0)


def test_who_takes_longer_began_when_it_did() -> None:
    flights = Flights(1)
    flights.begin(Flight(3.0, Fate(job(partition_id=0), None, 4.0)))
    flights.delay(Fate(job(partition_id=0), None, 9.0))
    assert flights.first is not None
    assert (flights.first.began, flights.first.fate.ends) == (3.0, pytest.approx(9.0))
