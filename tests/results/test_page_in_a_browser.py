"""A run's page in headless Chromium, at the widths of a phone and a laptop; skipped without Chromium."""

from __future__ import annotations

import pytest

from browser import measured
from fed_asi.fleets.config import GroupConfig
from fed_asi.results import report
from made_clock import with_clock
from made_run import make
from made_twins import with_groups, with_twins

pytestmark = pytest.mark.slow

SCREENS = [(390, 844), (1280, 800)]
MANY = tuple(
    GroupConfig(name=f"sensors of the northern district, number {i}", count=2, budget=(i + 1) * 5000)
    for i in range(12)
)
PAGES = {
    "plain": make,
    "twins and a clock": lambda folder: with_clock(with_groups(with_twins(make(folder)))),
    "many groups of long names": lambda folder: make(folder, groups=MANY),
    "not begun": lambda folder: make(folder, finish=False, begun=False),
}


@pytest.mark.parametrize("kind", PAGES)
def test_nothing_sticks_out_and_the_first_screen_answers(kind, tmp_path):
    page = report.write([PAGES[kind](tmp_path / "run")]).read_text()
    found = measured(tmp_path, page, SCREENS)
    assert len(found) == len(SCREENS)
    for (width, height), lies in zip(SCREENS, found, strict=True):
        assert lies["questions"] == ["Did it work?", "What did each budget buy?", "What was left out?"]
        assert lies["reach"] <= lies["width"] <= width
        assert 0 < lies["answers"] <= height
        assert all(lies["images"])
