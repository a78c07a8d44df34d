"""Texts that rich is given: no markup, no emoji code, no link, no control character is read in them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from fed_asi.results.rich_text import plain
from fed_asi.texts import visible
from hostile_names import HOSTILE


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_shown_as_it_is(name: str) -> None:
    console = Console(file=io.StringIO(), width=2000, force_terminal=True)
    console.print(plain(name))
    assert console.file.getvalue() == f"{visible(name)}\n"
