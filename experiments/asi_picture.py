"""Draw what is kept in memory for the backward pass: a layer's whole input, or what ASI keeps of it. Areas are bytes.

python experiments/asi_picture.py docs/explanation/asi.svg
"""

from __future__ import annotations

import sys
from math import prod, sqrt
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

DIMS, RANKS = (64, 96, 8, 8), (8, 8, 3, 3)
MODES = ("batch", "channels", "height", "width")
INPUT, CORE, FACTOR, INK = "#56B4E9", "#D55E00", "#E69F00", "#333333"  # colours of Okabe and Ito
UNIT = 3.2 / sqrt(prod(DIMS))  # the input is 3.2 high


def block(
    axes: Axes, place: tuple[float, float], numbers: int, rows: float, colour: str
) -> tuple[float, float]:
    """Draw `numbers` as a rectangle, about `rows` of them high, and return its width and height."""
    height = rows * UNIT
    width = numbers / rows * UNIT
    axes.add_patch(Rectangle(place, width, height, facecolor=colour, edgecolor="white", linewidth=0.8))
    return width, height


def draw(axes: Axes) -> None:
    """Draw both ways side by side."""
    axes.set(xlim=(-0.2, 9.4), ylim=(-1.15, 3.75), aspect="equal")
    axes.axis("off")
    side = sqrt(prod(DIMS))
    block(axes, (0, 0), prod(DIMS), side, INPUT)
    axes.text(1.6, 1.6, " x ".join(map(str, DIMS)), ha="center", va="center", fontsize=11, color=INK)
    axes.text(1.6, 3.4, "plain training keeps the input", ha="center", fontsize=10, color=INK)
    kept = prod(RANKS) + sum(d * r for d, r in zip(DIMS, RANKS, strict=True))
    axes.text(6.6, 3.4, "ASI keeps a core and four factors", ha="center", fontsize=10, color=INK)
    core = sqrt(prod(RANKS))
    width, height = block(axes, (5.0, 1.45), prod(RANKS), core, CORE)
    note(axes, (5.0 + width, 1.45 + height / 2), f"core {' x '.join(map(str, RANKS))}")
    for place, mode, d, r in zip((2.75, 2.25, 1.0, 0.6), MODES, DIMS, RANKS, strict=True):
        width, height = block(axes, (5.0, place), d * r, sqrt(d * r), FACTOR)
        note(axes, (5.0 + width, place + height / 2), f"{mode}: {d} x {r}")
    for x, numbers in ((1.6, prod(DIMS)), (6.6, kept)):
        axes.text(
            x, -0.35, f"{numbers * 4 / 1024:,.0f} KiB", ha="center", fontsize=12, weight="bold", color=INK
        )
    less = f"{prod(DIMS) / kept:.0f} times less, and the gradient of the weight is then approximate"
    axes.text(4.7, -0.95, less, ha="center", fontsize=9.5, color=INK)


def note(axes: Axes, place: tuple[float, float], text: str) -> None:
    """Write a label beside a rectangle."""
    axes.text(place[0] + 0.12, place[1], text, va="center", fontsize=9, color=INK)


def main(file: Path) -> None:
    """Write the picture."""
    mpl.rcParams["svg.hashsalt"] = "asi"
    figure = Figure(figsize=(7.2, 3.7))
    draw(figure.add_axes((0, 0, 1, 1)))
    figure.savefig(file, metadata={"Date": None}, facecolor="white")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
