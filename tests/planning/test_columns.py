"""Rows as lines: aligned, and within a width if one is given."""

from __future__ import annotations

import pytest

from fed_asi.planning.columns import columns

ROWS = [
    ("layer", "kept as", "bytes"),
    ("blocks.10.inverted_bottleneck.conv", "Tucker 1x6x4x4 in 8 bits, centred", "1.5 KiB"),
    ("classifier", "whole", "168 B"),
]


def test_rows_are_aligned() -> None:
    assert columns([("a", "b"), ("long", "c")]) == "a     b\nlong  c"
    assert columns(ROWS, 200) == columns(ROWS)


@pytest.mark.parametrize("width", [79, 70, 60, 40, 20, 8, 3])
def test_what_is_too_long_goes_on_below_within_its_column(width: int) -> None:
    lines = columns(ROWS, width).splitlines()
    assert max(map(len, lines)) <= max(width, 5)  # three columns and what is between them
    assert "".join(sorted("".join(lines).replace(" ", ""))) == "".join(
        sorted("".join(cell for row in ROWS for cell in row).replace(" ", ""))
    )


def test_names_and_units_are_whole_as_long_as_they_can_be() -> None:
    text = columns(ROWS, 70)
    assert "blocks.10.inverted_bottleneck.conv" in text
    assert "1.5 KiB" in text
    assert "8 bits," in text
