"""What figures are made of: colours, dots and lines, axes of bytes and of shares, and the PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from fed_asi.results.summary import Summary
from fed_asi.texts import clipped
from fed_asi.units import format_bytes

INK, GRID, BAD = "#22303c", "#e3e8ec", "#c0392b"


NAME_CHARS = 30  # of a group or a run in a legend


Color = Any


def panels(figure: Figure, count: int) -> list[Axes]:
    """Return so many axes side by side, as all figures have them."""
    figure.set_size_inches(6.4 if count == 1 else 10.4, 4.4)
    found = [figure.add_subplot(1, count, i + 1) for i in range(count)]
    for axes in found:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(True, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK)
    return found


def png(figure: Figure) -> bytes:
    """Return the figure as a picture, with one legend below all of its panels."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(label), handle)
    if entries:
        handles, labels = list(entries.values()), list(entries)
        figure.legend(handles, labels, loc="outside lower center", frameon=False, fontsize=8, ncols=3)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=160, metadata={"Software": None})
    return held.getvalue()


def shown(name: str) -> str:
    """Return a name as a legend has it; matplotlib leaves out what begins with "_"."""
    text = clipped(name, NAME_CHARS)
    return f" {text}" if text.startswith("_") else text


def group_colors(summary: Summary) -> dict[str, Color]:
    """Tight budgets dark, roomy ones bright: the colour says what the axis says."""
    ordered = sorted(summary.groups, key=lambda g: [(b is None, b or 0) for b in g.budgets] or [(True, 0)])
    shades = colormaps["viridis"]
    return {g.name: shades(0.05 + 0.8 * i / max(1, len(ordered) - 1)) for i, g in enumerate(ordered)}


def shades(count: int) -> list[Color]:
    """Return a colour a run."""
    if count == 1:
        return ["#2a6f97"]
    return [colormaps["viridis"](0.1 + 0.75 * i / (count - 1)) for i in range(count)]


def line(axes: Axes, points: Sequence[tuple[float, float | None]], **style: Any) -> None:
    """Draw a line through the points that are known."""
    known = [(x, y) for x, y in points if y is not None]
    if known:
        axes.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=4, **style)


def dots(axes: Axes, points: Sequence[tuple[float, float]], **style: Any) -> None:
    """Draw a dot a point, where there are any."""
    if points:
        axes.scatter([x for x, _ in points], [y for _, y in points], **style)


def bytes_axis(
    axes: Axes, which: str, values: Sequence[int | float | None], unlimited_at: float = -1
) -> None:
    """Make an axis one of bytes, by powers of two; unlimited_at: where "unlimited" stands."""
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


def percent_axis(axes: Axes) -> None:
    """Make the upright axis one of shares from 0 to 1, in percent."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(0.0, low), min(1.02, high))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
