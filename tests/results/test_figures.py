"""The figures: what they show of a run, as matplotlib received it; the same run gives the same bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from matplotlib.axes import Axes

from drawn import figures_of
from fed_asi.results.figures import draw
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from made_run import make

MAIN, ROUNDS, BUDGETS = (
    "What the bytes capture and what devices gain",
    "Accuracy over rounds",
    "Measured bytes against budget",
)


def summary_of(folder) -> Summary:
    with RunStore.read(folder) as store:
        return summarise(store)


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    return summary_of(make(tmp_path_factory.mktemp("runs") / "made"))


def axes_of(*summaries: Summary) -> dict[str, Axes]:
    """Return what draw puts on each figure; pictures themselves are not made."""
    return {title: figure.axes[0] for title, figure in figures_of(*summaries).items()}


@pytest.fixture(scope="module")
def axes(summary):
    return axes_of(summary)


def dots(axes: Axes, label: str) -> list[tuple[float, float]]:
    (one,) = [drawn for drawn in axes.collections if drawn.get_label() == label]
    return [(float(x), float(y)) for x, y in one.get_offsets()]


def labels(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


@pytest.mark.slow
@pytest.mark.computes
def test_pictures_are_png_and_the_same_run_gives_the_same_bytes(summary):
    first, again = draw([summary, summary]), draw([summary, summary])
    assert list(first) == [ROUNDS, "Accuracy against activation memory"]
    assert all(picture.png.startswith(b"\x89PNG") for picture in first.values())
    assert all(picture.svg.lstrip().startswith(b"<?xml") for picture in first.values())
    assert first == again


def test_one_run_has_its_main_figure_and_two_more_that_say_what_they_show(summary, axes):
    assert list(axes) == [MAIN, ROUNDS, BUDGETS]
    drawn = draw([summary], bitmaps=False)
    assert drawn[MAIN].says.endswith("measure.twins = true does.")
    assert [picture.png for picture in drawn.values()] == [b""] * 3
    assert [picture.upright is not None for picture in drawn.values()] == [True, False, False]
    assert all(b"prefers-color-scheme: dark" in picture.svg for picture in drawn.values())
    assert [len(picture.table.rows) for picture in drawn.values()] == [8, 5, 8]


def test_rounds_have_the_whole_and_the_worst_class(summary, axes):
    everything, worst = axes[ROUNDS].lines
    assert list(everything.get_xdata()) == [0, 1, 2, 3, 4]
    assert list(everything.get_ydata()) == [r.accuracy for r in summary.rounds]
    assert (everything.get_label(), worst.get_label()) == ("all classes", "worst class")
    assert list(worst.get_ydata()) == [r.worst_class_accuracy for r in summary.rounds]


def test_budgets_have_a_line_nobody_is_above(axes):
    (line,) = axes[BUDGETS].lines
    assert list(line.get_xdata()) == list(line.get_ydata())
    for name in ("medium", "roomy"):
        assert all(measured <= budget for budget, measured in dots(axes[BUDGETS], name))
    assert [x for x, _ in dots(axes[BUDGETS], "never trained: no plan fits")] == [2048.0]
    axes[BUDGETS].figure.canvas.draw()
    assert [tick.get_text() for tick in axes[BUDGETS].get_xticklabels()] == ["2 KiB", "64 KiB", "unlimited"]


def test_before_anything_was_measured_the_figures_say_so(tmp_path):
    drawn = axes_of(summary_of(make(tmp_path / "x", finish=False, begun=False)))
    assert [text.get_text() for text in drawn[BUDGETS].texts] == ["nothing was measured yet"]
    assert labels(drawn[ROUNDS]) == []


def test_several_runs_are_told_apart_by_name(summary):
    drawn = axes_of(summary, replace(summary, name="other"))
    assert labels(drawn[ROUNDS]) == ["made", "other"]
    largest = max(d.measured_bytes for d in summary.devices if d.measured_bytes)
    assert dots(drawn["Accuracy against activation memory"], "other") == [(largest, summary.final.accuracy)]
