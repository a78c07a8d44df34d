"""Texts for rich that are shown exactly: in a plain str, rich would read markup, emoji codes and links."""

from __future__ import annotations

import textwrap

from rich.cells import cell_len
from rich.text import Text

from fed_asi.texts import visible


def plain(text: object) -> Text:
    """Return a text that is shown as it is, on one line; characters that would act on a terminal are escaped."""
    return Text(visible(text))


def folded(line: str, most: int) -> str:
    """Return a line as lines of at most `most` cells each, broken between words; all but the first are indented."""
    if cell_len(line) <= most:
        return line
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.fill(line, most, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
