"""Figures in dark mode: nothing is lost on a dark background, and light mode is unchanged."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_asi.results.drawing import INK, ON_DARK, PAPER
from fed_asi.results.night import NIGHT, READABLE, at_night, by_day_and_night, contrast
from fed_asi.studies.drawing import COLORS, ladder_looks


def test_contrast_is_that_of_the_standard():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # the standard's well-known grey


@given(st.binary(min_size=3, max_size=3))
def test_any_colour_can_be_seen_by_night(rgb):
    color = f"#{rgb.hex()}"
    if color not in NIGHT:
        found = at_night(color)
        assert contrast(found, NIGHT[PAPER]) >= READABLE
        assert found == color or contrast(color, NIGHT[PAPER]) < READABLE


def test_lines_stay_apart_by_night():
    assert len({at_night(color) for color in COLORS}) == len(COLORS)
    steps = [at_night(one.color) for one in ladder_looks(6)]
    assert len(set(steps)) == 6
    shades = [contrast(one, NIGHT[PAPER]) for one in steps]
    assert shades == pytest.approx(sorted(shades), rel=0.03)  # the darkest two are lifted to what can be seen


def test_an_svg_keeps_its_colours_by_day_and_names_those_of_the_night():
    svg = (
        f'<svg><defs></defs><path style="fill: {PAPER}; stroke: {INK}"/><path style="fill: {ON_DARK}"/></svg>'
    )
    made = by_day_and_night(svg.encode()).decode()
    day = dict(re.findall(r"--(\w{6}):(#\w{6});", made.split("@media")[0]))
    restored = re.sub(r"<style>.*?</style>", "", made)
    assert re.sub(r"var\(--(\w{6})\)", lambda found: day[found[1]], restored) == svg
    assert f"--{INK[1:]}:{NIGHT[INK]};" in made.split("@media")[1]
