"""Texts for rich that are shown exactly: in a plain str, rich would read markup, emoji codes and links."""

from __future__ import annotations

from rich.text import Text

from fed_asi.texts import visible


def plain(text: object) -> Text:
    """Return a text that is shown as it is, on one line; characters that would act on a terminal are escaped."""
    return Text(visible(text))
