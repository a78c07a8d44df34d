"""Fixtures: where real data and weights are, and a quiet, repeatable machine."""

from __future__ import annotations

import copy
import gc
import os
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

# Beside a checkout of the project, not inside it: (FED_ASI_SHARED or ../shared).
SHARED = Path(os.environ.get("FED_ASI_SHARED", Path(__file__).parents[2] / "shared"))

torch.set_num_threads(1)
gc.disable()  # nothing of what collection imports is garbage

# No test asserts on seconds: in a fresh clone the first text that hypothesis draws takes two of them.
QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# What passed on one machine passes on the next: the same examples every time.
# Fifty examples a test here, a hundred where new ones are looked for.
settings.register_profile("same everywhere", max_examples=50, derandomize=True, database=None, **QUIET)
settings.register_profile("explore", settings(), **QUIET)  # by hand: pytest --hypothesis-profile explore
settings.load_profile("same everywhere")


@pytest.hookimpl(tryfirst=True)  # before marks select
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave as many cases of a test marked `few` fast as it says, the first and the last among them."""
    cases = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        if item.get_closest_marker("few") is not None:
            cases[item.nodeid.partition("[")[0]].append(item)
    for every in cases.values():
        for item in spread(every, every[0].get_closest_marker("few")):
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.computes)


def spread(every: list[pytest.Item], few: Any) -> list[pytest.Item]:
    """Return the cases that are left out where n are taken at equal distances; one alone is the middle one."""
    (number,), last = few.args, len(every) - 1
    taken = {last // 2} if number == 1 else {round(one * last / (number - 1)) for one in range(number)}
    return [item for place, item in enumerate(every) if place not in taken]


def pytest_collection_finish() -> None:
    """Take what was imported out of what a garbage collection walks, and collect seldom: it was a twentieth of all."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


def _folder(name: str, needed: str) -> Path:
    folder = SHARED / name
    if not (folder / needed).exists():
        pytest.skip(f"{name}/{needed} is not beside this checkout")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Read the digits and calibrate each network once a process, and do not wait for the disk.

    Whoever loads the digits gets a copy. A profile's address holds all that decides its numbers; the few tests that
    watch a calibration ask for a folder of their own.
    """
    from fed_asi.data import sources

    read = cache(sources._digits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        patch.setitem(sources._SOURCES, "digits", lambda folder, size: copy.deepcopy(read(folder, size)))
        patch.setattr(os, "fsync", lambda _descriptor: None)
        yield


@pytest.fixture(scope="session")
def cifar10_dir() -> Path:
    """The folder with a real cifar10.npz, or a skip by name."""
    return _folder("data", "cifar10.npz")


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """The folder with MCUNet's ImageNet weights, or a skip by name."""
    return _folder("weights", "mcunet-in1.pth")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked `gpu` by name where torch can use none."""
    if item.get_closest_marker("gpu") is not None and not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use is on this machine")


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of runs without drawing: figures have tests of their own, and take a second a page."""
    from fed_asi.results.figures import Picture

    drawn = {"Accuracy over rounds": Picture(b"svg", b"png")}
    monkeypatch.setattr("fed_asi.results.figures.draw", lambda _summaries, **_how: drawn)


@pytest.fixture
def own_names() -> Iterator[None]:
    """Whatever a test registers, by any of the registries, is forgotten after it."""
    from fed_asi.codecs import base as codecs
    from fed_asi.data import shards, sources
    from fed_asi.fleets import hardware, over_budget
    from fed_asi.layers import base as kinds
    from fed_asi.methods import base, family, recipe
    from fed_asi.models import registry
    from fed_asi.strategies import base as strategies

    registries: list[dict[Any, Any]] = [
        base.KINDS, family._NAMED, recipe._RECIPES, kinds._KINDS, registry._NETWORKS, sources._SOURCES,
        shards._SCHEMES, over_budget._POLICIES, strategies._STRATEGIES, codecs._CODECS,
         hardware._REGISTERED,
    ]  # fmt: skip
    before = [dict(one) for one in registries]
    yield
    for one, kept in zip(registries, before, strict=True):
        one.clear()
        one.update(kept)
