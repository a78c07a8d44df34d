"""The main figure: against twins if there are any; without them, nothing that one run cannot show."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from fed_asi.results.main_figure import main_figure
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_run import make
from made_twins import with_twins


def summary_of(folder) -> Summary:
    with RunStore.read(folder) as store:
        return summarise(store)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return summary_of(make(tmp_path_factory.mktemp("runs") / "alone"))


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    return summary_of(with_twins(make(tmp_path_factory.mktemp("runs") / "beside")))


def panels_of(summary: Summary) -> tuple[Axes, Axes]:
    figure = Figure()
    main_figure(summary).draw(figure, summary)
    left, right = figure.axes
    return left, right


def dots(axes: Axes, label: str = "") -> list[tuple[float, float]]:
    """Return the dots with this label, or all that have none."""
    found = [one for one in axes.collections if isinstance(one, PathCollection)]
    drawn = [
        one for one in found if one.get_label() == label or (not label and one.get_label().startswith("_"))
    ]
    return [(float(x), float(y)) for one in drawn for x, y in one.get_offsets()]


def test_with_twins_a_dot_is_a_device_against_its_twin(beside):
    left, right = panels_of(beside)
    by_hand = {(d.measured_bytes or d.budget_bytes, -0.01 * (1 + d.partition_id % 3)) for d in beside.devices}
    assert sorted(dots(left)) == [pytest.approx(point) for point in sorted(by_hand)]
    trained = [d for d in beside.devices if d.trained]
    cosines = sorted((d.measured_bytes, 1 - 0.03 * (1 + d.partition_id % 3)) for d in trained)
    assert sorted(dots(right)) == [pytest.approx(point) for point in cosines]
    assert left.get_ylabel().startswith("accuracy minus its twin's")


def test_a_group_has_its_mean_and_interval(beside):
    left, _ = panels_of(beside)
    medium = [d for d in beside.devices if d.group == "medium"]
    ((x, y),) = dots(left, "medium (mean)")
    assert (x, y) == (
        pytest.approx(fmean(d.measured_bytes for d in medium)),
        pytest.approx(fmean(d.twin_difference for d in medium)),
    )
    bars = [container for container in left.containers if container.has_yerr]
    assert len(bars) == 2  # of the groups of three devices and more
    group = next(g for g in beside.groups if g.name == "medium")
    ((low, high),) = [(p[0][1], p[1][1]) for p in bars[0].lines[2][0].get_segments()]
    half = group.twin_difference.half
    assert (low, high) == (pytest.approx(y - half), pytest.approx(y + half))


def test_a_device_that_its_budget_left_out_is_there_at_its_budget(beside):
    left, right = panels_of(beside)
    assert (2048.0, pytest.approx(-0.01)) in dots(left)
    assert 2048.0 not in [x for x, _ in dots(right)]  # it has no update, so no cosine


def test_small_differences_are_not_made_large(beside):
    tiny = replace(
        beside, devices=tuple(replace(d, twin_difference=-1e-6, twin_cosine=0.99999) for d in beside.devices)
    )
    left, right = panels_of(tiny)
    assert left.get_ylim() == pytest.approx((-0.02, 0.02), abs=0.03)
    assert right.get_ylim()[0] <= 0.95


def test_without_twins_it_says_what_it_cannot_say(alone, beside):
    assert main_figure(beside).title == "What the budget costs"
    assert "measure.twins" not in main_figure(beside).says
    assert "a difference between groups does not show what their budgets cost" in main_figure(alone).says
    left, right = panels_of(alone)
    assert [text.get_text() for text in left.texts] == [
        "not in this run's records"
    ]  # made before it was recorded
    assert all(gain == pytest.approx(0.05) for _, gain in dots(right))
    captured = replace(alone, devices=beside.devices, groups=beside.groups)
    captured = replace(captured, devices=tuple(replace(d, paired=0) for d in captured.devices))
    left, _ = panels_of(captured)
    by_hand = sorted((d.measured_bytes, d.gradient_captured) for d in beside.devices if d.trained)
    assert sorted(dots(left)) == [pytest.approx(point) for point in by_hand]


def test_plain_twins_are_named_for_what_they_are(beside):
    plain = replace(
        beside,
        run=replace(beside.run, config=beside.run.config.replace('"twins": false', '"twins": "plain"')),
    )
    assert main_figure(plain).title == "What budget and method cost"
    left, _ = panels_of(plain)
    assert "its twin: plain training" in left.get_legend_handles_labels()[1]
