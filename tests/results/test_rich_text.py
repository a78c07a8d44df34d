"""Texts given to rich: no markup, emoji code, link or control character in them is interpreted."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fed_asi.results.rich_text import folded, plain
from fed_asi.texts import visible
from hostile_names import HOSTILE


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is(name: str) -> None:
    console = Console(file=io.StringIO(), width=2000, force_terminal=True)
    console.print(plain(name))
    assert console.file.getvalue() == f"{visible(name)}\n"


def test_a_long_line_goes_on_indented_and_no_word_is_broken() -> None:
    assert folded("a short one", 80) == "a short one"
    assert folded("note: one two three-four", 12) == "note: one\n  two\n  three-four"
    assert (
        folded("  --resume a-name-longer-than-the-line", 20) == "  --resume\n    a-name-longer-than-the-line"
    )
