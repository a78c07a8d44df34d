"""Numbers as people read them."""

from __future__ import annotations

import pytest

from fed_asi.studies.findings import Row
from fed_asi.studies.measures import ACCURACY, SAVED
from fed_asi.studies.statistics import Difference, Verdict, compare, estimate
from fed_asi.studies.wording import Wording, heading, under_difference, under_estimate, wording


@pytest.mark.parametrize(
    ("unit", "value", "shown"),
    [
        ("share", 0.7626, "76.3"),
        ("points", -0.012, "−1.2"),
        ("bytes", 65536, "64.0 KiB"),
        ("rounds", 7, "7"),
        ("rounds", 7.5, "7.5"),
        ("seconds", 0.25, "0.25 s"),
        ("seconds", 90, "1.5 min"),
        ("seconds", 5 * 3600, "5 h"),
        ("seconds", 4e7, "11111 h"),
        ("joules", 1234.5, "1.23 kJ"),
        ("joules", 0, "0 J"),
    ],
)
def test_values_have_their_unit(unit, value, shown):
    assert Wording(unit).value(value) == shown


def test_differences_have_a_sign():
    words = Wording("share")
    assert (words.change(0.01), words.change(-0.01), words.change(0)) == ("+1.0", "−1.0", "0.0")
    assert Wording("bytes").change(-2048) == "−2.0 KiB"
    assert words.change_span(-0.01, 0.02) == "−1.0 to +2.0"


@pytest.mark.parametrize(("se", "digits"), [(0.01, 1), (0.0005, 1), (0.0004, 2), (0.00004, 3), (1e-9, 3)])
def test_shares_have_digits_enough_for_their_spread(se, digits):
    rows = [Row({}, estimate([0.5, 0.5 + 2 * se]))]  # of two values, the error is half their distance
    assert wording(ACCURACY, rows).digits == digits
    assert wording(SAVED, rows) == Wording("bytes")
    assert wording(ACCURACY, [Row({}, None)]).digits == 1


def test_headings_name_the_unit_where_values_do_not():
    assert (heading(ACCURACY), heading(SAVED)) == ("accuracy, %", "saved bytes")


def test_what_stands_under_a_number_is_how_sure_it_is():
    words = Wording("share")
    assert under_estimate(words, estimate([0.7, 0.72, 0.77])) == "64.0 to 82.0"
    assert under_estimate(words, estimate([0.7])) == "1 seed: no interval"
    assert under_estimate(words, estimate([0.7, 0.8])) == "2 seeds: no interval"
    assert under_estimate(words, estimate([0.7] * 3)) == ""
    base, own = {0: 0.6, 1: 0.7, 2: 0.65}, {0: 0.63, 1: 0.72, 2: 0.69, 3: 0.9}
    one = compare({"base": base, "own": own}, "base")["own"]
    assert under_difference(words, one, 4) == "+0.5 to +5.5, higher, 3 pairs"
    assert under_difference(words, one, 3) == "+0.5 to +5.5, higher"
    assert under_difference(words, Difference(0, Verdict.NONE), 1) == "no common seed"
    assert under_difference(words, Difference(1, Verdict.FEW, 0.1), 1) == "too few seeds, 1 pair"
