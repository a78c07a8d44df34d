"""The registry of measures: its contents, what may be added, and the record columns that they ask for."""

from __future__ import annotations

from dataclasses import fields

import pytest

from fed_asi.errors import ConfigError
from fed_asi.results.sql_tables import TABLES
from fed_asi.studies.measures import CURVES, MEASURES, Measure, Way, register

TODAY = {f"{table}.{one.name}" for table, (record, _) in TABLES.items() for one in fields(record)}


def test_every_measure_and_curve_is_one_of_todays_columns():
    assert not [name for name, one in MEASURES.items() if one.way(frozenset(TODAY)) is None]
    assert all(TODAY.issuperset(one.way.needs) for one in CURVES)


def test_a_name_is_taken_once():
    with pytest.raises(ConfigError, match="'bytes_up' is there already"):
        register(MEASURES["bytes_up"])


def test_the_first_way_whose_columns_are_there_is_taken():
    ways = (Way("SELECT 1", ("rounds.new",)), Way("SELECT 2", ("rounds.old",)))
    measure = Measure("x", "x", "seconds", "less", ways)
    assert measure.way(frozenset({"rounds.new", "rounds.old"})) is ways[0]
    assert measure.way(frozenset({"rounds.old"})) is ways[1]
    assert measure.way(frozenset()) is None


def test_accuracy_is_weighed_against_every_headline_of_which_less_is_better():
    prices = [one.name for one in MEASURES.values() if one.is_price]
    assert prices[:3] == ["ram_bytes", "measured_bytes", "flash_bytes"]
    assert {"bytes_up", "sim_seconds", "energy_joules"} <= set(prices)
    assert not {"final_accuracy", "planned_bytes", "host_seconds", "rounds"} & set(prices)


def test_bounds_are_those_of_the_unit():
    assert MEASURES["final_accuracy"].bounds == (0, 1)
    assert Measure("x", "x", "bytes", "less", (Way("SELECT 1", ()),)).bounds[0] == 0
