"""The figures that explain show the trace, counts and plans they are given; the page has their numbers."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from fed_asi import arena
from fed_asi.results.drawing import drawing

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "explanation"


@pytest.fixture(scope="module")
def made() -> dict:
    return runpy.run_path(str(ROOT / "experiments" / "explain.py"))


def test_a_steps_memory_is_its_traces(made) -> None:
    plain, low_rank = made["steps"]("tiny", 32, 4, 8).values()
    for method, one in ((None, plain), (made["FORM"], low_rank)):
        trunk, tail, x, y = made["network"]("tiny", 32, 4, 8, method)
        with torch.no_grad():
            features = trunk(x)
        found = arena(tail, features, y, gradients="applied")
        assert one.between == found.saved_bytes
        assert one.peak == found.factor_bytes + sum(tensor.bytes for tensor in found.at_peak)
    assert low_rank.between < plain.between
    assert all(saved <= total for saved, total in zip(plain.saved, plain.total, strict=True))
    figure = Figure()
    with drawing():
        made["draw_steps"](figure, {"plain": plain, "ASI": low_rank})
    tops = [max(one.get_path().vertices[:, 1]) for one in figure.axes[0].patches]
    assert tops == [plain.peak, max(plain.saved)]


@pytest.mark.slow
@pytest.mark.computes
def test_a_device_is_stacked_to_its_ram_and_flash(made) -> None:
    held = made["devices"]("tiny", 32, 4)
    figure = Figure()
    with drawing():
        made["draw_devices"](figure, held)
    ram, flash = figure.axes
    rows = len(held)
    ends = [max(one.get_x() + one.get_width() for one in ram.patches[row::rows]) for row in range(rows)]
    assert ends == [one.ram_bytes for one in held.values()]
    assert [one.get_width() for one in flash.patches] == [one.flash_bytes for one in held.values()]


def test_the_page_shows_four_figures_by_day_and_by_night() -> None:
    text = (DOCS / "figures.md").read_text()
    names = re.findall(r"!\[[^\]]+\]\((figures/\w+\.svg)\)", text)
    assert len(names) == 4
    for name in names:
        assert "prefers-color-scheme: dark" in (DOCS / name).read_text()
    assert len(list((DOCS / "figures").iterdir())) == 4


@pytest.mark.slow
@pytest.mark.computes
def test_the_pages_numbers_are_those_of_now(made) -> None:
    """Those that shapes alone decide, which are the same on every machine."""
    text = " ".join((DOCS / "figures.md").read_text().split())
    for name, value in made["numbers"](made["steps"](), made["devices"]()).items():
        shown = f"{value:.0f} times less" if name == "times" else str(value)
        assert shown in text, name
