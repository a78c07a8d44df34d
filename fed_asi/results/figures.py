"""The figures of a report, as PNG bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
)

from fed_asi.results.summary import DeviceResult, Summary
from fed_asi.texts import clipped
from fed_asi.units import format_bytes

INK, GRID, BAD = "#22303c", "#e3e8ec", "#c0392b"


NAME_CHARS = 30  # of a group or a run in a legend


Color = Any


def draw(summaries: Sequence[Summary]) -> dict[str, bytes]:
    """Return figures by caption, each a PNG: of one run, or of several runs against each other."""
    makers: dict[str, Callable[[Axes, Sequence[Summary]], None]]
    if len(summaries) > 1:
        makers = {"Accuracy over rounds": _rounds, "Accuracy against activation memory": _runs}
    else:
        makers = {
            "Accuracy against per-device activation memory": _memory,
            "Accuracy over rounds": _rounds,
            "Measured bytes against budget": _budgets,
        }
    no_formula = rc_context({"text.parse_math": False, "text.usetex": False})  # a name is none
    with no_formula, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "Glyph .* missing from font"
        )  # shown as a box; the page has the name
        return {caption: _png(maker, summaries) for caption, maker in makers.items()}


def _shown(name: str) -> str:
    """Return a name as a legend has it; matplotlib leaves out what begins with "_"."""
    shown = clipped(name, NAME_CHARS)
    return f" {shown}" if shown.startswith("_") else shown


def _png(maker: Callable[[Axes, Sequence[Summary]], None], summaries: Sequence[Summary]) -> bytes:
    figure = Figure(figsize=(10.4, 4.4) if maker is _memory else (6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK)
    maker(axes, summaries)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="outside lower center", frameon=False, fontsize=8, ncols=3)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=160, metadata={"Software": None})
    return held.getvalue()


def _group_colors(summary: Summary) -> dict[str, Color]:
    """Tight budgets dark, roomy ones bright: the colour says what the axis says."""
    ordered = sorted(summary.groups, key=lambda g: [(b is None, b or 0) for b in g.budgets] or [(True, 0)])
    shades = colormaps["viridis"]
    return {g.name: shades(0.05 + 0.8 * i / max(1, len(ordered) - 1)) for i, g in enumerate(ordered)}


def _memory(axes: Axes, summaries: Sequence[Summary]) -> None:
    (summary,) = summaries
    colors = _group_colors(summary)
    for group in summary.groups:
        mine = [d for d in summary.devices if d.group == group.name]
        points = [(d.measured_bytes, d.accuracy_after) for d in mine if d.measured_bytes]
        known = [(float(x), y) for x, y in points if x is not None and y is not None]
        if not known:
            continue
        color = colors[group.name]
        _dots(axes, known, s=26, alpha=0.45, color=color, linewidths=0)
        mean = (fmean(x for x, _ in known), fmean(y for _, y in known))
        label = f"{_shown(group.name)} (mean)"
        _dots(axes, [mean], s=110, color=color, edgecolors="white", linewidths=1.2, zorder=4, label=label)
    if summary.final is not None and summary.final.accuracy is not None:
        label = "the shared model, server's test"
        axes.axhline(summary.final.accuracy, color=INK, linewidth=1, linestyle=":", label=label)
    _bytes_axis(axes, "x", [d.measured_bytes for d in summary.devices])
    _percent_axis(axes)
    axes.set_xlabel("saved activations of the largest step, one device")
    axes.set_ylabel("accuracy on the device's own held-out images")


def _rounds(axes: Axes, summaries: Sequence[Summary]) -> None:
    for color, summary in zip(_shades(len(summaries)), summaries, strict=True):
        alone = len(summaries) == 1
        label = "all classes" if alone else _shown(summary.name)
        _line(axes, [(r.round, r.accuracy) for r in summary.rounds], color=color, label=label)
        if alone:
            worst = [(r.round, r.worst_class_accuracy) for r in summary.rounds]
            _line(axes, worst, color=BAD, label="worst class", linestyle="--", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _percent_axis(axes)
    axes.set_xlabel("round")
    axes.set_ylabel("accuracy on the server's test images")


def _line(axes: Axes, points: Sequence[tuple[int, float | None]], **style: Any) -> None:
    known = [(x, y) for x, y in points if y is not None]
    if known:
        axes.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=4, **style)


def _dots(axes: Axes, points: Sequence[tuple[float, float]], **style: Any) -> None:
    if points:
        axes.scatter([x for x, _ in points], [y for _, y in points], **style)


def _shades(count: int) -> list[Color]:
    if count == 1:
        return ["#2a6f97"]
    return [colormaps["viridis"](0.1 + 0.75 * i / (count - 1)) for i in range(count)]


def _runs(axes: Axes, summaries: Sequence[Summary]) -> None:
    for color, summary in zip(_shades(len(summaries)), summaries, strict=True):
        known = [d.measured_bytes for d in summary.devices if d.measured_bytes is not None]
        if known and summary.final is not None and summary.final.accuracy is not None:
            _dots(axes, [(max(known), summary.final.accuracy)], s=90, label=_shown(summary.name), color=color)
    _bytes_axis(axes, "x", [d.measured_bytes for s in summaries for d in s.devices])
    _percent_axis(axes)
    axes.set_xlabel("saved activations of the largest step of any device")
    axes.set_ylabel("final accuracy on the server's test images")


def _budgets(axes: Axes, summaries: Sequence[Summary]) -> None:
    (summary,) = summaries
    colors = _group_colors(summary)
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
        _scatter_device(axes, mine, color, unlimited_at, _shown(name))
    _left_out(axes, [d for d in summary.devices if d.trained == 0], low)
    ticks = sorted({d.budget_bytes for d in summary.devices if d.budget_bytes is not None})
    marks = [*ticks, *([unlimited_at] if any_unlimited else [])]
    _bytes_axis(axes, "x", marks, unlimited_at)
    if len(marks) <= 8:
        axes.xaxis.set_major_locator(FixedLocator(marks))
    _bytes_axis(axes, "y", sizes)
    axes.set_ylim(low / 1.5, high * 1.2)
    axes.set_xlabel("budget for saved activations")
    axes.set_ylabel("saved activations, largest step\n(dot: measured, ring: planned)")


def _scatter_device(
    axes: Axes, devices: Sequence[DeviceResult], color: Color, unlimited_at: float, name: str
) -> None:
    planned = [(d.budget_bytes or unlimited_at, d.planned_bytes) for d in devices if d.planned_bytes]
    _dots(axes, planned, s=70, facecolors="none", edgecolors=color, linewidths=1)
    measured = [(d.budget_bytes or unlimited_at, d.measured_bytes) for d in devices if d.measured_bytes]
    _dots(axes, measured, s=22, color=color, label=name)


def _left_out(axes: Axes, devices: Sequence[DeviceResult], low: float) -> None:
    known = [d.budget_bytes for d in devices if d.budget_bytes is not None and d.measured_bytes is None]
    if known:
        axes.scatter(
            known, [low] * len(known), marker="x", s=40, color=BAD, label="never trained: no plan fits"
        )


def _bytes_axis(
    axes: Axes, which: str, values: Sequence[int | float | None], unlimited_at: float = -1
) -> None:
    known = [value for value in values if value]
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", base=2)
    if not known:
        return
    low, high = min(known), max(known)
    if which == "x":
        axes.set_xlim(low / 1.6, high * 1.6)
    axis.set_major_locator(LogLocator(base=2 if high / low < 64 else 4, numticks=9))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, unlimited_at)))


def _tick(value: float, unlimited_at: float) -> str:
    if unlimited_at > 0 and value > unlimited_at / 2:
        return "unlimited"
    return format_bytes(round(value)).replace(".0 ", " ")


def _percent_axis(axes: Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(max(0.0, low), min(1.02, high))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
