"""The page of the command line agrees with the parsers."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_of_the_commands_of_now() -> None:
    made = runpy.run_path(str(ROOT / "experiments" / "command_line_page.py"))
    assert (ROOT / "docs" / "reference" / "command_line.md").read_text() == made["page"]()
