"""The building blocks of a study's figures: distinguishable looks, axes, labels beside their points, SVG and PNG.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart, without the yellow, which is
faint on white. No two of the first 56 lines share both colour and marker, and the dashes change every seven lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator
from matplotlib.transforms import Bbox

from fed_asi.results.drawing import GRID, INK, PAPER, bytes_axis, legend_below, percent_axis, saved
from fed_asi.studies.measures import Unit
from fed_asi.studies.wording import SCALES, Wording

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", INK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES = ("-", "--", "-.", ":")
WIDTH, HEIGHT = 4.6, 3.5  # inches: small enough for legible text at the width of a phone
SMALL = 8.0  # points


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as vector and bitmap. name: of its files. says: what is drawn and how, as text."""

    name: str
    caption: str
    says: str
    svg: bytes
    png: bytes


@dataclass(frozen=True, slots=True)
class Look:
    """How a line or a set of points is drawn."""

    color: str
    marker: str
    dash: str


def look(index: int) -> Look:
    """Return the look of the line with this index."""
    return Look(COLORS[index % 7], MARKERS[index % 8], DASHES[index // 7 % 4])


def ladder_looks(count: int) -> list[Look]:
    """Return looks for ascending sizes: the larger the size, the brighter the colour, in greyscale too."""
    shades = colormaps["cividis"]
    return [
        Look(to_hex(shades(0.05 + 0.7 * i / max(1, count - 1))), MARKERS[i % 8], DASHES[i // 8 % 4])
        for i in range(count)
    ]


def canvas(height: float = HEIGHT) -> tuple[Figure, Axes]:
    """Return an empty figure of the width of all study figures, and its axes."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
    axes = figure.add_subplot(facecolor=PAPER)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def picture(figure: Figure, name: str, caption: str, says: str) -> Picture:
    """Return the figure as SVG and PNG, with a legend below its axes, for which it is enlarged."""
    legend_below(figure)
    return Picture(name, caption, says, saved(figure, "svg"), saved(figure, "png"))


def cost_axis(axes: Axes, unit: Unit, values: Sequence[float] = ()) -> None:
    """Format the horizontal axis as a cost. Call it when everything is drawn.

    values: those shown on the axis, if powers of two or ten may mark it; they do if the range is wide enough.
    """
    least, most = min(values, default=0.0), max(values, default=0.0)
    if unit == "bytes" and 0 < least < most / 3:
        bytes_axis(axes, "x", values)
        return
    if unit in ("seconds", "joules") and 0 < least < most / 8:
        axes.set_xscale("log")
    if axes.get_xscale() == "linear":
        if least > 0:
            axes.set_xlim(left=max(0.0, axes.get_xlim()[0]))
        low, high = axes.get_xlim()
        if unit == "bytes":
            axes.xaxis.set_major_locator(
                MultipleLocator(2.0 ** math.floor(math.log2(max(4.0, high - low) / 3)))
            )
        elif unit == "rounds":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        elif unit in SCALES:
            axes.xaxis.set_major_locator(MultipleLocator(_step(unit, high, high - low)))
    words = Wording(unit)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words.value(value).replace(".0 ", " ")))


def _step(unit: Unit, most: float, span: float) -> float:
    """Return a distance for three to eight ticks, round in the unit that values up to `most` are written in."""
    scale = next((one for one, _ in SCALES[unit] if most / 3 >= one), 1.0)
    wanted = max(span / scale, 1e-9) / 3.5
    power = 10.0 ** math.floor(math.log10(wanted))
    return scale * power * max(one for one in (1, 2, 5) if one * power <= wanted)


def share_axis(axes: Axes) -> None:
    """Format the vertical axis as shares in percent."""
    percent_axis(axes)
    low, high = axes.get_ylim()
    digits = 1 if high - low < 0.06 else 0
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.{digits}f} %"))


_PLACES = (  # horizontal and vertical alignment, and offset from the point: clear of lines and bars first
    ("left", "bottom", 0.7, 0.5),
    ("left", "top", 0.7, -0.5),
    ("right", "bottom", -0.7, 0.5),
    ("right", "top", -0.7, -0.5),
    ("left", "center", 1, 0),
    ("right", "center", -1, 0),
    ("center", "bottom", 0, 1),
    ("center", "top", 0, -1),
)


@dataclass(frozen=True, slots=True)
class Label:
    """A name and the point that it labels."""

    text: str
    x: float
    y: float
    color: str


def label_points(figure: Figure, axes: Axes, labels: Sequence[Label]) -> bool:
    """Write each point's name beside it, where no other point or name is.

    Return False, and write no names, if there is no room for one of them.
    """
    figure.draw_without_rendering()  # lays out the axes
    taken = [_box(axes, one, 6) for one in labels]
    written: list[Annotation] = []
    for one in labels:
        text = _placed(axes, one, taken)
        if text is None:
            for other in written:
                other.remove()
            return False
        written.append(text)
        taken.append(text.get_window_extent())
    return True


def _placed(axes: Axes, one: Label, taken: Sequence[Bbox]) -> Annotation | None:
    room = axes.get_window_extent()
    for distance in (7, 14, 22):
        for across, upright, right, up in _PLACES:
            text = axes.annotate(
                one.text,
                (one.x, one.y),
                (distance * right, distance * up),
                textcoords="offset points",
                ha=across,
                va=upright,
                fontsize=SMALL,
                color=one.color,
                path_effects=[withStroke(linewidth=2.5, foreground=PAPER)],
            )
            text.set_in_layout(False)
            box = text.get_window_extent()
            if (
                room.contains(box.x0, box.y0)
                and room.contains(box.x1, box.y1)
                and not box.count_overlaps(taken)
            ):
                return text
            text.remove()
    return None


def _box(axes: Axes, one: Label, radius: float) -> Bbox:
    x, y = (float(value) for value in axes.transData.transform((one.x, one.y)))
    return Bbox([[x - radius, y - radius], [x + radius, y + radius]])


def capital(text: str) -> str:
    """Return a text with its first letter capitalised and the rest unchanged."""
    return text[:1].upper() + text[1:]
