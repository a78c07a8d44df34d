"""Rows of text, laid out in aligned columns."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

Rows = Sequence[tuple[str, ...]]
_UNIT = re.compile(r"(?<=\d) (?=\S)")  # the space between a number and its unit, where no line may break
_HELD = "\u00a0"


def columns(rows: Rows, width: int | None = None) -> str:
    """Return rows of cells as aligned lines. width: in characters; longer text wraps within its column."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if width is not None and _with(widths, gap=2) > width:
        return _folded([tuple(_UNIT.sub(_HELD, cell) for cell in row) for row in rows], widths, width)
    return "\n".join(_line(row, widths, gap=2) for row in rows)


def _folded(rows: Rows, natural: Sequence[int], width: int) -> str:
    least = [
        max((len(word) for row in rows for word in row[i].split(" ")), default=0) for i in range(len(natural))
    ]
    gap = 2 if _with(least, gap=2) <= width else 1
    while (over := _with(least, gap) - width) > 0 and max(
        least
    ) > 1:  # if need be break words too, in the widest column first
        widest = least.index(max(least))
        least[widest] = max(1, least[widest] - over, sorted(least)[-2] - 1)
    widths = _filled(least, natural, max(0, width - _with(least, gap)))
    lines = []
    for row in rows:
        cells = [
            textwrap.wrap(cell, most, break_on_hyphens=False) for cell, most in zip(row, widths, strict=True)
        ]
        lines += [_line(part, widths, gap).replace(_HELD, " ") for part in zip_longest(*cells, fillvalue="")]
    return "\n".join(lines)


def _filled(least: Sequence[int], natural: Sequence[int], room: int) -> list[int]:
    """Return the least widths, widened with the room left, first where a column lacks least of its natural width."""
    widths = list(least)
    for i in sorted(range(len(widths)), key=lambda i: natural[i] - least[i]):
        given = min(room, natural[i] - least[i])
        widths[i] += given
        room -= given
    return widths


def _with(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _line(cells: Sequence[str], widths: Sequence[int], gap: int) -> str:
    return (" " * gap).join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
