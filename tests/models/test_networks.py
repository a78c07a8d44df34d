"""Networks without code of their own here: planned, compressed and stepped within half of plain PyTorch's bytes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

NAMES = [
    "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1",
    "densenet121", "convnext_tiny", "vit_b_16", "swin_t", "mnasnet0_5",
]  # fmt: skip


@pytest.fixture(scope="module")
def networks() -> Iterator[ModuleType]:
    path = Path(__file__).parents[2] / "experiments" / "networks.py"
    spec = importlib.util.spec_from_file_location("networks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["networks"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["networks"]


def check(networks: ModuleType, name: str) -> None:
    found = networks.attempt(name)
    assert found.trained > 0
    assert found.measured_bytes <= found.planned_bytes <= found.budget_bytes == found.plain_bytes // 2


@pytest.mark.slow
@pytest.mark.computes
def test_a_network_of_fire_modules_without_batch_norms(networks: ModuleType) -> None:
    check(networks, "squeezenet1_1")


@pytest.mark.slow
@pytest.mark.computes
@pytest.mark.parametrize("name", NAMES)
def test_torchvision_networks_go_through_without_code_of_their_own(name: str, networks: ModuleType) -> None:
    check(networks, name)


def test_the_page_has_them_all(networks: ModuleType) -> None:
    assert set(networks.NETWORKS) == set(NAMES)
    page = (Path(__file__).parents[2] / "docs" / "results" / "networks.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in page for name in NAMES)
