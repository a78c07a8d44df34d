"""The registry: what is there, what may be added, and that columns of the records name what it asks."""

from __future__ import annotations

from dataclasses import fields

import pytest

from fed_asi.errors import ConfigError
from fed_asi.results.sql_tables import TABLES
from fed_asi.studies.measures import CURVES, MEASURES, SIM_SECONDS, Measure, Way, register

TODAY = {f"{table}.{one.name}" for table, (record, _) in TABLES.items() for one in fields(record)}
LATER = {"ram_bytes", "flash_bytes", "sim_seconds", "energy_joules"}  # no run of today has them


def test_every_other_measure_and_curve_is_one_of_todays_columns():
    assert {name for name, one in MEASURES.items() if one.way(frozenset(TODAY)) is None} <= LATER
    assert all(TODAY.issuperset(one.way.needs) for one in CURVES)


def test_a_name_is_taken_once():
    with pytest.raises(ConfigError, match="'bytes_up' is there already"):
        register(MEASURES["bytes_up"])


def test_the_first_way_whose_columns_are_there_is_taken():
    assert SIM_SECONDS.way(frozenset({"device_rounds.sim_seconds"})) is SIM_SECONDS.ways[1]
    assert (
        SIM_SECONDS.way(frozenset({"device_rounds.sim_seconds", "rounds.sim_seconds"})) is SIM_SECONDS.ways[0]
    )
    assert SIM_SECONDS.way(frozenset()) is None


def test_bounds_are_those_of_the_unit():
    assert MEASURES["final_accuracy"].bounds == (0, 1)
    assert Measure("x", "x", "bytes", "less", (Way("SELECT 1", ()),)).bounds[0] == 0
