"""The poster's figures: those for vanilla and the gradient filter, to the printed digit."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fed_asi import models


@pytest.fixture(scope="module")
def table() -> Iterator[ModuleType]:
    path = Path(__file__).parents[2] / "experiments" / "poster_table.py"
    spec = importlib.util.spec_from_file_location("poster_table", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["poster_table"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["poster_table"]


@pytest.fixture(scope="module")
def counted(table: ModuleType) -> Callable[[str], list[Any]]:
    """Return the rows of a network, counted once."""
    return cache(lambda network: list(table.counted_rows(network, models.build(network, 1000))))


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "network",
    [
        "mobilenet_v2",
        "resnet18",
        "mcunet",
        pytest.param("resnet34", marks=(pytest.mark.slow, pytest.mark.computes)),
    ],
)
def test_counted_figures_agree_with_the_poster(
    network: str, table: ModuleType, counted: Callable[[str], list[Any]]
) -> None:
    compared = 0
    for row in counted(network):
        key = (row.network, row.method, row.layers)
        if key not in table.PRINTED:
            continue
        compared += 1
        mib, gflops = table.PRINTED[key]
        assert table.digits(row.mib) == table.MISPRINTED.get(key, mib), key
        if row.method == "vanilla":
            assert table.digits(row.gflops) == gflops, key
        else:
            assert row.gflops == pytest.approx(float(gflops), abs=0.025), key
    assert compared == {"mobilenet_v2": 4, "resnet18": 4, "mcunet": 5, "resnet34": 5}[network]


# What the poster leaves out, recomputed: (MB, GFLOPs); and multiply-accumulates with groups counted.
RECOMPUTED = {
    ("mobilenet_v2", 4): (28.711, 57.48, 5.513),
    ("resnet18", 4): (30.625, 46.45, None),
    ("mcunet", 2): (13.781, 19.31, 0.611),
    ("mcunet", 4): (19.523, 19.88, 1.189),
    ("mcunet", "all"): (632.980, 248.84, 8.80),
    ("mobilenet_v2", 2): (15.312, 4.50, 4.496),
    ("mobilenet_v2", "all"): (1651.836, 830.82, 38.3),
    ("resnet34", "all"): (839.125, 528.55, None),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("network", sorted({network for network, _ in RECOMPUTED}))
def test_recomputed_figures(network: str, counted: Callable[[str], list[Any]]) -> None:
    rows = {(r.network, r.layers): r for r in counted(network) if r.method == "vanilla"}
    for key, (mib, gflops, gmacs) in RECOMPUTED.items():
        if key[0] != network:
            continue
        assert rows[key].mib == pytest.approx(mib, abs=0.0006), key
        assert rows[key].gflops == pytest.approx(gflops, abs=0.006), key
        if gmacs is not None:
            assert rows[key].gmacs == pytest.approx(gmacs, rel=0.002), key


def test_the_published_page_has_every_printed_figure(table: ModuleType) -> None:
    page = (Path(__file__).parents[2] / "docs" / "results" / "poster_table.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "---" not in line]
    for (network, method, layers), (mib, _) in table.PRINTED.items():
        assert any(f"| {network} | {layers} | {method} |" in row and f" {mib} |" in row for row in rows)
