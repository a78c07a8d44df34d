"""Texts as rich shows them: rich reads markup, emoji codes and links in a str, and none of them in these."""

from __future__ import annotations

from rich.text import Text

from fed_asi.texts import visible


def plain(text: object) -> Text:
    """Return a text that is shown as it is, on one line; characters that would act on a terminal are escaped."""
    return Text(visible(text))
