"""The figures of a run's page, each as a vector graphic, a bitmap, words and a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from fed_asi.results import captions
from fed_asi.results.clock_figures import OVER_TIME, accuracy_over_clock, draw_round, title_of
from fed_asi.results.drawing import (
    BAD,
    HEIGHT,
    INK,
    WIDTH,
    Color,
    bytes_axis,
    dots,
    drawing,
    group_colors,
    legend_below,
    line,
    panels,
    percent_axis,
    saved,
    shades,
    shown,
)
from fed_asi.results.figure_tables import (
    FigureTable,
    clock_table,
    devices_table,
    round_table,
    rounds_table,
    runs_table,
)
from fed_asi.results.main_figure import main_figure
from fed_asi.results.night import by_day_and_night
from fed_asi.results.summary import DeviceResult, Summary


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure: an SVG for a page, a bitmap, a caption (what to see, and what it cannot say), and its numbers.

    upright: for a figure of two panels, the version for narrow screens, with one below the other; None: one panel.
    png: empty if none was asked for.
    """

    svg: bytes
    png: bytes = b""
    says: str = ""
    table: FigureTable | None = None
    upright: bytes | None = None


Maker = Callable[[Figure, Sequence[Summary]], None]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What draws a figure, what to see in it, and its numbers."""

    maker: Maker
    says: str
    table: FigureTable


def draw(summaries: Sequence[Summary], *, bitmaps: bool = True) -> dict[str, Picture]:
    """Return figures by title, of one run, or of several runs compared."""
    with drawing():
        found = _several(summaries) if len(summaries) > 1 else _alone(summaries[0])
        found |= _of_the_clock(summaries)
        return {title: _picture(plan, summaries, bitmaps) for title, plan in found.items()}


def _several(summaries: Sequence[Summary]) -> dict[str, _Plan]:
    return {
        "Accuracy over rounds": _Plan(_rounds, captions.of_rounds(summaries), rounds_table(summaries)),
        "Accuracy against activation memory": _Plan(_runs, captions.SEVERAL, runs_table(summaries)),
    }


def _alone(summary: Summary) -> dict[str, _Plan]:
    main, devices = main_figure(summary), devices_table(summary)
    return {
        main.title: _Plan(lambda figure, one: main.draw(figure, one[0]), main.says, devices),
        "Accuracy over rounds": _Plan(_rounds, captions.of_rounds([summary]), rounds_table([summary])),
        "Measured bytes against budget": _Plan(_budgets, captions.of_budgets(summary), devices),
    }


def _of_the_clock(summaries: Sequence[Summary]) -> dict[str, _Plan]:
    """Return the figures of runs that all have a clock, and of one run a round of it."""
    if not all(one.sim_seconds for one in summaries):
        return {}
    found = {OVER_TIME: _Plan(accuracy_over_clock, captions.of_clock(summaries), clock_table(summaries))}
    last = summaries[0].timeline
    if len(summaries) == 1 and last is not None:
        found[title_of(last)] = _Plan(
            lambda figure, _: draw_round(figure, last), captions.of_round(last), round_table(last)
        )
    return found


def _picture(plan: _Plan, summaries: Sequence[Summary], bitmaps: bool) -> Picture:
    figure = _drawn(plan, summaries, (2 * WIDTH, HEIGHT))
    svg, png = by_day_and_night(saved(figure, "svg")), saved(figure, "png") if bitmaps else b""
    if len(figure.axes) == 1:
        return Picture(svg, png, plan.says, plan.table)
    upright = by_day_and_night(saved(_drawn(plan, summaries, (WIDTH, 2 * HEIGHT)), "svg"))
    return Picture(svg, png, plan.says, plan.table, upright)


def _drawn(plan: _Plan, summaries: Sequence[Summary], size: tuple[float, float]) -> Figure:
    figure = Figure(figsize=size, layout="constrained")
    plan.maker(figure, summaries)
    legend_below(figure)
    return figure


def _rounds(figure: Figure, summaries: Sequence[Summary]) -> None:
    (axes,) = panels(figure, 1)
    for color, summary in zip(shades(len(summaries)), summaries, strict=True):
        alone = len(summaries) == 1
        label = "all classes" if alone else shown(summary.name)
        line(axes, [(r.round, r.accuracy) for r in summary.rounds], color=color, label=label)
        if alone:
            worst = [(r.round, r.worst_class_accuracy) for r in summary.rounds]
            line(axes, worst, color=BAD, label="worst class", linestyle="--", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    percent_axis(axes)
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on the server's test images")


def _runs(figure: Figure, summaries: Sequence[Summary]) -> None:
    (axes,) = panels(figure, 1)
    for color, summary in zip(shades(len(summaries)), summaries, strict=True):
        known = [d.measured_bytes for d in summary.devices if d.measured_bytes is not None]
        if known and summary.final is not None and summary.final.accuracy is not None:
            dots(axes, [(max(known), summary.final.accuracy)], s=90, label=shown(summary.name), color=color)
    bytes_axis(axes, "x", [d.measured_bytes for s in summaries for d in s.devices])
    percent_axis(axes)
    axes.set_xlabel("saved activations of the largest step of any device")
    axes.set_ylabel("final accuracy on the server's test images")


def _budgets(figure: Figure, summaries: Sequence[Summary]) -> None:
    (summary,), (axes,) = summaries, panels(figure, 1)
    colors = group_colors(summary)
    sizes = [b for d in summary.devices for b in (d.budget_bytes, d.measured_bytes, d.planned_bytes) if b]
    if not sizes:
        axes.text(0.5, 0.5, "nothing was measured yet", ha="center", transform=axes.transAxes, color=INK)
        return
    low, high = min(sizes) / 2, max(sizes) * 2
    unlimited_at = high * 2
    any_unlimited = any(d.budget_bytes is None for d in summary.devices)
    axes.plot([low, high], [low, high], color=BAD, linewidth=1.2, label="the budget")
    axes.fill_between([low, high], [low, high], high * 4, color=BAD, alpha=0.06, linewidth=0)
    for name, color in colors.items():
        mine = [d for d in summary.devices if d.group == name]
        _scatter_device(axes, mine, color, unlimited_at, shown(name))
    _left_out(axes, [d for d in summary.devices if d.trained == 0], low)
    ticks = sorted({d.budget_bytes for d in summary.devices if d.budget_bytes is not None})
    marks = [*ticks, *([unlimited_at] if any_unlimited else [])]
    bytes_axis(axes, "x", marks, unlimited_at)
    if len(marks) <= 8:
        axes.xaxis.set_major_locator(FixedLocator(marks))
    bytes_axis(axes, "y", sizes)
    axes.set_ylim(low / 1.5, high * 1.2)
    axes.set_xlabel("budget for saved activations")
    axes.set_ylabel("saved activations, largest step\n(dot: measured, ring: planned)")


def _scatter_device(
    axes: Axes, devices: Sequence[DeviceResult], color: Color, unlimited_at: float, name: str
) -> None:
    planned = [(d.budget_bytes or unlimited_at, d.planned_bytes) for d in devices if d.planned_bytes]
    dots(axes, planned, s=70, facecolors="none", edgecolors=color, linewidths=1)
    measured = [(d.budget_bytes or unlimited_at, d.measured_bytes) for d in devices if d.measured_bytes]
    dots(axes, measured, s=22, color=color, label=name)


def _left_out(axes: Axes, devices: Sequence[DeviceResult], low: float) -> None:
    known = [d.budget_bytes for d in devices if d.budget_bytes is not None and d.measured_bytes is None]
    if known:
        axes.scatter(
            known, [low] * len(known), marker="x", s=40, color=BAD, label="never trained: no plan fits"
        )
