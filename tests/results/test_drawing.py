"""The parts that figures are made of."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from fed_asi.results import drawing


def test_a_legend_names_each_entry_of_all_panels_once() -> None:
    figure = Figure(layout="constrained")
    for axes in drawing.panels(figure, 2):
        drawing.dots(axes, [(1.0, 2.0)], label="both")
        drawing.line(axes, [(1, 2.0), (2, None)], label="and this")
    drawing.legend_below(figure)
    assert drawing.saved(figure, "png").startswith(b"\x89PNG")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["both", "and this"]


def test_what_is_not_known_is_not_drawn() -> None:
    (axes,) = drawing.panels(Figure(), 1)
    drawing.dots(axes, [])
    drawing.line(axes, [(1, None)])
    assert not axes.collections
    assert not axes.lines


@pytest.mark.parametrize(
    ("name", "shown"), [("plain", "plain"), ("_under", " _under"), ("x" * 200, "x" * 149 + "…")]
)
def test_every_name_is_shown(name: str, shown: str) -> None:
    assert drawing.shown(name) == shown


LONG = "nodes of the northern district, second floor, number "


@pytest.mark.few(2)
@pytest.mark.parametrize(
    "names",
    [["a", "b"], [f"{LONG}{i}" for i in range(7)], ["W" * 100, "i" * 100, "日本" * 40], [LONG * 5]],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a_legend_has_room_for_every_name(names: list[str], count: int) -> None:
    with drawing.drawing():
        figure = Figure(layout="constrained")
        axes = drawing.panels(figure, count)
        high = figure.get_figheight()
        for name in names:
            drawing.dots(axes[0], [(1.0, 2.0)], label=drawing.shown(name))
        drawing.legend_below(figure)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        box, panel = legend.get_window_extent(), axes[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert panel.y0 >= box.y1
    assert panel.height > 0.7 * high * figure.dpi
    whole = "".join(text.get_text().replace("\n", "") for text in legend.get_texts())
    for name in names:
        assert (name if len(name) <= 120 else name[:70]) in whole


def test_two_panels_are_below_each_other_where_the_figure_is_tall() -> None:
    upper, lower = drawing.panels(Figure(figsize=(3, 6)), 2)
    assert upper.get_position().y0 > lower.get_position().y1
    left, right = drawing.panels(Figure(figsize=(6, 3)), 2)
    assert left.get_position().x1 < right.get_position().x0


@pytest.mark.parametrize(
    ("name", "shown"), [("plain", "plain"), ("x" * 60, "x" * 24 + "\n" + "x" * 23 + "…")]
)
def test_a_name_at_an_axis_takes_two_lines(name: str, shown: str) -> None:
    assert drawing.tick(name) == shown


@pytest.mark.parametrize("values", [[], [None, 0], [1024], [1024, 1 << 20]])
def test_an_axis_of_bytes_is_one_of_powers_of_two(values: list[float | None]) -> None:
    (axes,) = drawing.panels(Figure(), 1)
    drawing.bytes_axis(axes, "x", values)
    assert axes.get_xscale() == "log"
    axes.figure.canvas.draw()
    assert not [text for text in axes.get_xticklabels() if "$" in text.get_text()]
    if any(values):
        assert axes.xaxis.get_major_formatter()(65536.0, 0) == "64 KiB"
