"""Figures for light and dark pages: their colours change with the reader's page."""

from __future__ import annotations

import re

from fed_asi.results.drawing import FAINT, GRID, INK, ON_DARK, ON_LIGHT, PAPER

READABLE = 3.0  # the contrast that lines and marks need. Source: WCAG 2.2, success criterion 1.4.11
NIGHT = {INK: "#dfe6ec", PAPER: "#1b232b", GRID: "#2f3a44", FAINT: "#7c8a96"}  # of a figure's colours
_COLOR = re.compile(": (#[0-9a-f]{6})")


def by_day_and_night(svg: bytes) -> bytes:
    """Return a figure whose colours change with the reader's page, by CSS of its own."""
    text = svg.decode()
    colors = sorted(set(_COLOR.findall(text)) - {ON_DARK, ON_LIGHT})
    changed = {color: night for color in colors if (night := at_night(color)) != color}
    text = _COLOR.sub(
        lambda found: f": var(--{found[1][1:]})" if found[1] in changed else found[0], text
    )  # --22303c is a name like any other
    day = "".join(f"--{color[1:]}:{color};" for color in changed)
    night = "".join(f"--{color[1:]}:{other};" for color, other in changed.items())
    style = f"<style>:root{{{day}}}@media (prefers-color-scheme: dark){{:root{{{night}}}}}</style>"
    head, mark, rest = text.partition("<defs>")
    return f"{head}{style}{mark}{rest}".encode()


def at_night(color: str) -> str:
    """Return the colour for dark paper: lighter if it would be hard to see there."""
    if color in NIGHT:
        return NIGHT[color]
    for share in range(50):
        mixed = [round(one + (255 - one) * share / 50) for one in bytes.fromhex(color[1:])]
        found = f"#{bytes(mixed).hex()}"
        if contrast(found, NIGHT[PAPER]) >= READABLE:
            return found
    return "#ffffff"


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, 1 to 21. Source: WCAG 2.2, relative luminance and contrast ratio."""
    low, high = sorted(map(_luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    parts = [one / 255 for one in bytes.fromhex(color[1:])]
    linear = [one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
    return sum(weight * one for weight, one in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
