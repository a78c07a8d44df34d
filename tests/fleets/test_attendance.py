"""Which devices of a fleet are present, each by its own description; presence over a week is not stored."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np

from fed_asi.fleets.attendance import Attendance
from fed_asi.fleets.device_keys import PresenceConfig
from fed_asi.fleets.presence import HOUR


def test_each_device_by_its_own_description(tmp_path: Path) -> None:
    trace = tmp_path / "a.csv"
    trace.write_text("device,start,end\na,0,100\n")
    night = PresenceConfig(kind="daily")
    fleet = Attendance([None, night, night, PresenceConfig(kind="trace", trace=str(trace))], 1)
    assert fleet.present(12 * HOUR)[:3].tolist() == [True, False, False]
    assert fleet.present(23 * HOUR)[:3].tolist() == [True, True, True]
    assert (fleet.always, Attendance([None, None], 1).always) == (False, True)
    alone = Attendance([night], 1)
    assert alone.first(np.array([12 * HOUR])) == 22 * HOUR
    assert alone.first(np.array([23 * HOUR])) == 23 * HOUR
    assert alone.first(np.array([math.inf])) == math.inf
    assert fleet.first(np.array([math.inf, 12 * HOUR, 23 * HOUR, math.inf])) == 22 * HOUR
    assert [fleet.is_there(one, 12 * HOUR) for one in range(3)] == [True, False, False]
    assert (fleet.leaves(0, 0.0), fleet.leaves(1, 23 * HOUR)) == (math.inf, 30 * HOUR)


def test_who_is_there_does_not_depend_on_when_one_looked_before(tmp_path: Path) -> None:
    trace = tmp_path / "a.csv"
    trace.write_text("device,start,end\na,0,100\nb,1800,9000\n")
    kinds = [None, PresenceConfig(kind="random", share=0.5), PresenceConfig(kind="daily", share=0.7)]
    descriptions = [*kinds * 10, *[PresenceConfig(kind="trace", trace=str(trace))] * 10]
    fleet = Attendance(descriptions, 1)
    for at in (0.0, 99.0, 101.0, 3599.0, 3600.0, 1801.0, 80_000.0, 3 * HOUR, 3.5 * HOUR, 0.0):
        assert fleet.present(at).tolist() == Attendance(descriptions, 1).present(at).tolist()


def test_a_week_of_a_hundred_thousand_takes_no_more_memory_than_its_first_hour() -> None:
    kinds = [PresenceConfig(kind="random", share=0.4), PresenceConfig(kind="daily", zones=(-5.0, 1.0, 8.0))]
    fleet = Attendance([kinds[one % 2] for one in range(100_000)], 3)
    tracemalloc.start()
    fleet.present(0.0)
    first = tracemalloc.get_traced_memory()[1]
    for hour in range(0, 7 * 24, 4):
        fleet.present(hour * HOUR)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1.1 * first
    assert held < 1 << 20
