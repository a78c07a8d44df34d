"""The figures, as matplotlib received them: points, intervals, front, bands, costs, shares; and names are data."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import islice

import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from fed_asi.results.drawing import drawing as drawing_as_studies
from fed_asi.studies import drawing
from fed_asi.studies.curves import band, curves
from fed_asi.studies.drawing import COLORS, Label, Picture, canvas, capital, label_points, ladder_looks, look
from fed_asi.studies.figures import draw
from fed_asi.studies.findings import find
from fed_asi.studies.frontier import frontiers
from fed_asi.studies.measures import ACCURACY, CURVES, MEASURES, ROUNDS, SAVED, Measure, Way
from fed_asi.studies.participation import costs, participation
from fed_asi.studies.statistics import estimate
from fed_asi.texts import visible
from hostile_names import HOSTILE, RECORDED
from made_study import FINALS, add_column, change, grid, study


def figures_of(found, drawn=lambda found: draw(found).all()) -> dict[str, Figure]:
    """Every figure by its name, as it was when it was saved; pictures themselves are not made."""
    held: dict[str, Figure] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "saved", lambda *_: b"")
        original = drawing.picture

        def kept(figure, name, caption, says):
            held[name] = figure
            return original(figure, name, caption, says)

        for module in ("frontier", "curves", "pairs", "participation"):
            patch.setattr(f"fed_asi.studies.{module}.picture", kept)
        pictures = drawn(found)
    assert {one.name for one in pictures} == held.keys()
    return held


def only(make, found, most: int | None = None) -> list[Picture]:
    """The first pictures of one kind."""
    with drawing_as_studies():
        return list(islice(make(found), most))


@pytest.fixture(scope="module")
def found(made):
    return find(made)


@pytest.fixture(scope="module")
def drawn(found):
    return figures_of(found)


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    """Three methods at three budgets, two seeds."""
    made = grid(
        tmp_path_factory.mktemp("grid"),
        {"a": 1.0, "b": 0.5, "c": 0.2},
        ["16 KiB", "4 KiB", "64 KiB"],
        [0, 1],
        final=lambda strength, size: 0.3 + 0.05 * strength * math.log2(size),
        rounds=2,
        baseline="a, 64 KiB",
    )
    return find(made)


def bars(axes, index: int) -> ErrorbarContainer:
    return [one for one in axes.containers if isinstance(one, ErrorbarContainer)][index]


def texts(figure: Figure) -> list[str]:
    return [one.get_text() for one in figure.findobj(Text) if one.get_text()]


def test_there_is_a_figure_for_each_thing_the_runs_have(drawn):
    assert list(drawn) == [
        "frontier-final-accuracy-measured-bytes",
        "frontier-worst-class-accuracy-measured-bytes",
        "cost-rounds",
        "cost-bytes-up",
        "pairs-accuracy",
        "curve-accuracy-rounds",
        "curve-worst-class-accuracy-rounds",
    ]


def test_the_frontier_has_every_variant_with_its_interval_and_the_front(found, drawn):
    (axes,) = drawn["frontier-final-accuracy-measured-bytes"].axes
    line, _, (_, upright) = bars(axes, 1)
    own = found.rows[ACCURACY]["better"].estimate
    assert list(line.get_xydata()[0]) == [found.rows[SAVED]["better"].estimate.mean, own.mean]
    assert [point[1] for point in upright.get_segments()[0]] == pytest.approx([own.low, own.high])
    front = next(one for one in axes.lines if one.get_label() == "front of the means")
    assert [y for _, y in front.get_xydata()] == pytest.approx([0.73, 0.83])
    assert front.get_drawstyle() == "steps-post"
    names = {one.get_text() for one in axes.texts}
    assert names == {"plain", "better", "alike", "lone"}
    legend = drawn["frontier-final-accuracy-measured-bytes"].legends[0]
    assert [one.get_text() for one in legend.get_texts()] == ["front of the means", "baseline: plain"]
    assert axes.get_xscale() == "log"


def test_names_beside_points_cover_no_point_and_no_name(drawn):
    figure = drawn["frontier-final-accuracy-measured-bytes"]
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [one.get_window_extent() for one in axes.texts]
    points = [axes.transData.transform(bars(axes, i)[0].get_xydata()[0]) for i in range(4)]
    for i, box in enumerate(boxes):
        assert not box.count_overlaps(boxes[:i])
        assert not any(box.contains(*point) for point in points)


def test_names_without_room_stay_in_the_legend():
    figure, axes = canvas()
    axes.plot([0, 1], [0, 1])
    crowd = [
        Label("a long name that is as wide as the axes are", 0.5, 0.5 + i / 1000, "#000000")
        for i in range(30)
    ]
    assert label_points(figure, axes, crowd) is False
    assert not axes.texts


def test_a_ladder_is_a_line_in_the_order_of_its_sizes(ladder):
    drawn = figures_of(ladder)
    (axes,) = drawn["frontier-final-accuracy-measured-bytes"].axes
    xs = list(bars(axes, 0)[0].get_xdata())
    assert xs == sorted(xs)
    assert len(xs) == 3
    legend = [
        one.get_text() for one in drawn["frontier-final-accuracy-measured-bytes"].legends[0].get_texts()
    ]
    assert legend == ["front of the means", "baseline: a, 64 KiB", "a", "b", "c"]
    sheets = [name for name in drawn if name.startswith("curve-accuracy")]
    assert sheets == ["curve-accuracy-rounds-1", "curve-accuracy-rounds-2", "curve-accuracy-rounds-3"]
    assert len({drawn[name].axes[0].get_ylim() for name in sheets}) == 1
    first = [one.get_text() for one in drawn[sheets[0]].legends[0].get_texts()]
    assert first == ["4 KiB (2 seeds)", "16 KiB (2 seeds)", "64 KiB (2 seeds)"]
    second = [one.get_text() for one in drawn[sheets[1]].legends[0].get_texts()]
    assert second[-1] == "baseline: a, 64 KiB"


def test_a_setting_that_is_no_size_of_bytes_has_a_figure_that_a_study_of_robustness_begins_with(tmp_path):
    made = study(tmp_path, {f"faults {x}": {0: 0.9 - x} for x in (0.0, 0.5, 0.1)})
    cells = tuple(replace(cell, settings={"faults": float(cell.variant[7:])}) for cell in made.cells)
    found = find(replace(made, cells=cells, kind="robustness"))
    drawn = figures_of(found)
    (axes,) = drawn["setting-final-accuracy"].axes
    assert list(bars(axes, 0)[0].get_xdata()) == [0.0, 0.1, 0.5]
    assert axes.get_xlabel() == "faults"
    assert next(iter(drawn)) == "setting-final-accuracy"


def test_a_price_that_is_added_has_its_frontier_its_front_and_its_cost(tmp_path, monkeypatch):
    way = Way("SELECT round, coded_bytes FROM rounds WHERE round > 0 ORDER BY round", ("rounds.coded_bytes",))
    added = Measure("coded_bytes", "coded bytes", "bytes", "less", (way,), spent=True)
    monkeypatch.setitem(MEASURES, added.name, added)
    made = study(tmp_path, {"a": {0: 0.5}, "b": {0: 0.7}}, target=0.4)
    for cell, price in zip(made.cells, (100, 500), strict=True):
        add_column(cell.folder, "rounds", "coded_bytes", str(price))
    drawn = figures_of(find(made), lambda found: [*only(frontiers, found), *only(costs, found)])
    (axes,) = drawn["frontier-final-accuracy-coded-bytes"].axes
    front = next(one for one in axes.lines if one.get_label() == "front of the means")
    assert front.get_xydata().tolist() == [[300, 0.5], pytest.approx([1500, 0.7])]
    assert "cost-coded-bytes" in drawn


def test_a_band_is_the_interval_at_each_round_that_all_seeds_evaluated(found):
    one = band(found.runs["better"], CURVES[0], ROUNDS)
    assert one.spent == (0, 1, 2, 3)
    own = estimate(list(FINALS["better"].values()))
    assert (one.values[-1].low, one.values[-1].high) == pytest.approx((own.low, own.high))
    assert band(found.runs["gone"], CURVES[0], ROUNDS) is None
    run = found.runs["lone"][0]
    halves = {0: run, 1: replace(run, curves={"accuracy": {0: 0.1, 2: 0.5}})}
    assert band(halves, CURVES[0], ROUNDS).spent == (0, 2)
    assert band({0: replace(run, spent={})}, CURVES[0], ROUNDS) is None


def test_curves_are_over_the_simulated_clock_too_where_there_is_one(tmp_path):
    made = study(tmp_path, {"a": {0: 0.5}})
    add_column(
        made.cells[0].folder, "rounds", "sim_end_seconds", "CASE WHEN round > 0 THEN 600.0 * round END"
    )
    drawn = figures_of(find(made))
    (axes,) = drawn["curve-accuracy-sim-seconds"].axes
    assert list(axes.lines[0].get_xdata()) == [0, 600, 1200, 1800]
    axes.figure.canvas.draw()
    assert {"10 min", "20 min", "30 min"} <= {one.get_text() for one in axes.get_xticklabels()}


def test_costs_show_each_seed_and_those_that_never_got_there(drawn):
    (axes,) = drawn["cost-rounds"].axes
    dots = {
        int(line.get_ydata()[0]): list(line.get_xdata())
        for line in axes.lines
        if line.get_marker() == "o" and len(line.get_ydata())
    }
    assert dots == {0: [3], 1: [3, 3, 3], 2: [3], 3: [3]}
    assert {int(line.get_ydata()[0]) for line in axes.lines if line.get_marker() == ">"} == {0, 2}
    assert [one.get_text() for one in axes.texts] == ["2 of 3", "2 of 3"]


def test_who_took_part_is_drawn_where_not_everyone_did(found, made, tmp_path):
    assert draw_names(found) == []
    lost = study(tmp_path, {"a": {0: 0.5}, "b": {0: 0.5}})
    change(lost.cells[0].folder, "UPDATE device_rounds SET outcome = 'killed' WHERE partition_id = 2")
    drawn = figures_of(find(lost), lambda found: only(participation, found))
    (axes,) = drawn["outcomes"].axes
    widths = {one.get_label(): [bar.get_width() for bar in one] for one in axes.containers}
    assert widths == {"trained": pytest.approx([2 / 3, 1]), "killed": pytest.approx([1 / 3, 0])}
    (axes,) = drawn["groups"].axes
    assert [one.get_text() for one in axes.texts] == ["100", "0", "100", "100"]
    assert [one.get_text() for one in axes.get_xticklabels()] == ["edge", "phone"]


def draw_names(found) -> list[str]:
    return list(figures_of(found, lambda found: only(participation, found)))


def test_lines_differ_in_colour_and_marker_and_their_dashes_where_colours_begin_again():
    looks = [look(i) for i in range(56)]
    assert len({(one.color, one.marker) for one in looks}) == 56
    assert [one.dash for one in looks[:7]] == ["-"] * 7
    assert looks[7].dash != "-"
    assert "#f0e442" not in COLORS
    assert len({one.color for one in ladder_looks(9)}) == 9


@pytest.mark.parametrize(("text", "shown"), [("RAM", "RAM"), ("papers' count", "Papers' count"), ("", "")])
def test_captions_begin_with_a_capital_and_are_else_as_they_were(text, shown):
    assert capital(text) == shown


@pytest.mark.slow
@pytest.mark.computes
def test_pictures_are_svg_and_png_and_the_same_study_gives_the_same_bytes(tmp_path):
    made = study(tmp_path, {name: {0: 0.5 + i / 100} for i, name in enumerate(RECORDED[:3])}, rounds=1)
    found = find(made)
    with drawing_as_studies():
        one, again = next(frontiers(found)), next(frontiers(found))
    assert one == again
    assert ET.fromstring(one.svg).tag == "{http://www.w3.org/2000/svg}svg"
    assert one.png.startswith(b"\x89PNG")
    assert not re.search(rb"<(script|image)|href=\"http", one.svg.replace(b"http://www.w3.org", b""))


def test_figures_compute_no_formula_and_leave_no_name_out(tmp_path):
    names = {name: {0: 0.5} for name in HOSTILE}
    gaps = {(name, 0): "x" for name in HOSTILE if name not in RECORDED}
    found = find(study(tmp_path, names, gaps=gaps, rounds=1, target=0.1))

    def one_of_each(found):
        return [one for make in (frontiers, costs, curves) for one in only(make, found, 1)]

    for name, figure in figures_of(found, one_of_each).items():
        assert not any(one.get_parse_math() for one in figure.findobj(Text) if one.get_text()), name
        shown = " ".join(texts(figure)).replace("\n", "")
        if name.startswith(("frontier", "cost")):
            assert [one for one in RECORDED if visible(one)[:40].strip() not in shown] == [], name
