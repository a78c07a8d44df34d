"""What figures are made of."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from fed_asi.results import drawing


def test_a_legend_names_each_entry_of_all_panels_once() -> None:
    figure = Figure(layout="constrained")
    for axes in drawing.panels(figure, 2):
        drawing.dots(axes, [(1.0, 2.0)], label="both")
        drawing.line(axes, [(1, 2.0), (2, None)], label="and this")
    assert drawing.png(figure).startswith(b"\x89PNG")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["both", "and this"]


def test_what_is_not_known_is_not_drawn() -> None:
    (axes,) = drawing.panels(Figure(), 1)
    drawing.dots(axes, [])
    drawing.line(axes, [(1, None)])
    assert not axes.collections
    assert not axes.lines


@pytest.mark.parametrize(
    ("name", "shown"), [("plain", "plain"), ("_under", " _under"), ("x" * 40, "x" * 29 + "…")]
)
def test_every_name_is_shown(name: str, shown: str) -> None:
    assert drawing.shown(name) == shown


@pytest.mark.parametrize("values", [[], [None, 0], [1024], [1024, 1 << 20]])
def test_an_axis_of_bytes_is_one_of_powers_of_two(values: list[float | None]) -> None:
    (axes,) = drawing.panels(Figure(), 1)
    drawing.bytes_axis(axes, "x", values)
    assert axes.get_xscale() == "log"
    if any(values):
        assert axes.xaxis.get_major_formatter()(65536.0, 0) == "64 KiB"
