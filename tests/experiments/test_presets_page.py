"""The page of presets agrees with the presets."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_of_the_presets_of_now() -> None:
    made = runpy.run_path(str(ROOT / "experiments" / "presets_page.py"))
    assert (ROOT / "docs" / "reference" / "presets.md").read_text() == made["page"]() + "\n"
    assert [made["number"](value) for value in (2.5e9, 737280.0, 83.0, None)] == ["2.5 G", "737 k", "83", "-"]
