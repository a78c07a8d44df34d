"""The parts of figures: colours, dots and lines, axes of bytes and of shares, a legend below, SVG and PNG.

A figure is narrow enough to be read on a phone. Two panels are side by side, or below each other if the figure is
taller than wide.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from fed_asi.results.summary import Summary
from fed_asi.texts import clipped, visible
from fed_asi.units import format_bytes

INK, GRID, BAD = "#22303c", "#e3e8ec", "#c0392b"
PAPER, FAINT = "#ffffff", "#98a5b0"
ON_DARK, ON_LIGHT = "#fefefe", "#101010"  # on backgrounds that are the same by day and by night
WIDTH, HEIGHT = 4.8, 3.5  # inches of a panel
SMALL = 8.0  # points
DPI = 144  # of bitmaps, for slides and chats; the SVG has any resolution
NAME_CHARS = 150  # of a group or a run in a legend, over at most three lines
TICK_CHARS, LINES = 24, 3  # of a name at an axis, a line; lines of a name in a legend
_HANDLE, _GAP = 30.0, 16.0  # points: of what is before a name in a legend, and between two columns


Color = Any


@contextmanager
def drawing() -> Iterator[None]:
    """Set the style of all figures: names are not parsed as formulas, and the same records give the same bytes."""
    settings: Any = {
        "text.parse_math": False,
        "text.usetex": False,
        "svg.hashsalt": "fed_asi",
        "svg.fonttype": "path",
        "font.size": 9,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # a box here; the page has the name
        yield


def panels(figure: Figure, count: int) -> list[Axes]:
    """Return `count` axes, side by side, or below each other in a figure that is taller than wide."""
    upright = figure.get_figheight() > figure.get_figwidth()
    rows, columns = (count, 1) if upright else (1, count)
    figure.set_size_inches(WIDTH * columns, HEIGHT * rows)
    figure.set_facecolor(PAPER)
    found = [figure.add_subplot(rows, columns, i + 1, facecolor=PAPER) for i in range(count)]
    for axes in found:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(True, color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK)
    return found


def legend_below(figure: Figure) -> None:
    """Make one legend of all axes below them, enlarging the figure for it; long names take several lines."""
    entries: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(str(label), handle)
    if not entries:
        return
    room = 72 * figure.get_figwidth() - _GAP
    names = [_on_lines(label, room - _HANDLE) for label in entries]
    widest = max(_points(line) for name in names for line in name.split("\n")) + _HANDLE
    columns = max(1, min(len(names), 4, int((room + _GAP) // (widest + _GAP))))
    rows = -(-len(names) // columns)
    deepest = [max(name.count("\n") + 1 for name in names[row::rows]) for row in range(rows)]
    figure.set_figheight(figure.get_figheight() + 0.16 * sum(deepest) + 0.1)
    figure.legend(
        list(entries.values()),
        names,
        loc="outside lower center",
        frameon=False,
        fontsize=SMALL,
        ncols=columns,
        handlelength=2.4,
        columnspacing=_GAP / SMALL,
    )


def _on_lines(name: str, room: float) -> str:
    """Return a name broken into at most three lines, each at most `room` points wide."""
    lines: list[str] = []
    rest = name
    while rest and len(lines) < LINES:
        fits = _fitting(rest, room)
        if len(lines) == LINES - 1 and fits < len(rest):
            lines.append(f"{rest[: max(1, fits - 1)]}…")
            break
        lines.append(rest[:fits])
        rest = rest[fits:]
    return "\n".join(lines)


def _fitting(text: str, room: float) -> int:
    """Return how many characters fit on a line, at least one; if possible, the line ends with a word."""
    fits = len(text)
    while fits > 1 and _points(text[:fits]) > room:
        fits -= 1
    blank = text.rfind(" ", fits // 2, fits)
    return fits if fits == len(text) or blank < 0 else blank + 1


def _points(text: str) -> float:
    return sum(_width(one) for one in text)


@lru_cache(maxsize=4096)
def _width(letter: str) -> float:
    """Return how wide a letter is in a legend, in points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for a letter missing in the font; its box is as wide
        return float(text_to_path.get_text_width_height_descent(letter, FontProperties(size=SMALL), False)[0])


def saved(figure: Figure, kind: str) -> bytes:
    """Return the figure as "svg" or "png"."""
    held = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(held, format=kind, dpi=DPI, metadata=metadata)
    return held.getvalue()


def shown(name: str) -> str:
    """Return a name for a legend; matplotlib would leave out one that begins with "_"."""
    text = clipped(name, NAME_CHARS)
    return f" {text}" if text.startswith("_") else text


def tick(name: str) -> str:
    """Return a name for an axis or a point: two lines at most."""
    text = visible(name)
    if len(text) <= TICK_CHARS:
        return text
    return f"{text[:TICK_CHARS]}\n{clipped(text[TICK_CHARS:], TICK_CHARS)}"


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
    """Draw a line through the known points."""
    known = [(x, y) for x, y in points if y is not None]
    if known:
        axes.plot([x for x, _ in known], [y for _, y in known], marker="o", markersize=4, **style)


def dots(axes: Axes, points: Sequence[tuple[float, float]], **style: Any) -> None:
    """Draw a dot for each point, if there are any."""
    if points:
        axes.scatter([x for x, _ in points], [y for _, y in points], **style)


def bytes_axis(
    axes: Axes, which: str, values: Sequence[int | float | None], unlimited_at: float = -1
) -> None:
    """Make an axis one of bytes, in powers of two; unlimited_at: the place of "unlimited"."""
    known = [value for value in values if value]
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log", base=2)
    if not known:
        axis.set_major_locator(NullLocator())
        axis.set_minor_locator(NullLocator())
        return
    low, high = min(known), max(known)
    if which == "x":
        axes.set_xlim(low / 1.6, high * 1.6)
    axis.set_major_locator(LogLocator(base=2 if high / low < 64 else 4, numticks=6 if which == "x" else 9))
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
