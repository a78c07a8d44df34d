"""The figures of a report: each a PNG and what it says."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from fed_asi.results.clock_figures import OVER_TIME, SAYS, accuracy_over_clock, draw_round, round_of
from fed_asi.results.drawing import (
    BAD,
    INK,
    Color,
    bytes_axis,
    dots,
    group_colors,
    line,
    panels,
    percent_axis,
    png,
    shades,
    shown,
)
from fed_asi.results.main_figure import main_figure
from fed_asi.results.summary import DeviceResult, Summary


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as PNG bytes, and what it says and cannot say, in words. pair: it has two panels side by side."""

    png: bytes
    says: str = ""
    pair: bool = False


Maker = Callable[[Figure, Sequence[Summary]], None]


def draw(summaries: Sequence[Summary]) -> dict[str, Picture]:
    """Return figures by title: of one run, or of several runs against each other."""
    makers: dict[str, tuple[str, Maker]]
    if len(summaries) > 1:
        makers = {
            "Accuracy over rounds": ("", _rounds),
            "Accuracy against activation memory": (SEVERAL, _runs),
            **_of_the_clock(summaries),
        }
    else:
        main = main_figure(summaries[0])
        makers = {
            main.title: (main.says, lambda figure, one: main.draw(figure, one[0])),
            "Accuracy over rounds": ("", _rounds),
            "Measured bytes against budget": ("", _budgets),
            **_of_the_clock(summaries),
        }
    no_formula = rc_context({"text.parse_math": False, "text.usetex": False})  # a name is none
    with no_formula, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from font"
        )  # shown as a box; the page has the name
        return {title: _picture(maker, summaries, says) for title, (says, maker) in makers.items()}


def _of_the_clock(summaries: Sequence[Summary]) -> dict[str, tuple[str, Maker]]:
    """Return the figures of runs that all have a clock, and of one run a round of it."""
    if not all(one.sim_seconds for one in summaries):
        return {}
    found: dict[str, tuple[str, Maker]] = {OVER_TIME: (SAYS, accuracy_over_clock)}
    last = summaries[0].timeline
    if len(summaries) == 1 and last is not None:
        title, says = round_of(last)
        found[title] = (says, lambda figure, _: draw_round(figure, last))
    return found


SEVERAL = (
    "One run a dot. Whether two of them differ by more than their seeds do, several seeds of each would say."
)


def _picture(maker: Maker, summaries: Sequence[Summary], says: str) -> Picture:
    figure = Figure(layout="constrained")
    maker(figure, summaries)
    return Picture(png(figure), says, pair=len(figure.axes) == 2)


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
