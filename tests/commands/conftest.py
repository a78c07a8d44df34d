"""A fleet file in its own folder, and a back end that does what a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fed_asi.commands import run
from fed_asi.results.store import RunStore

FLEET = """
name = "small"
rounds = 1
cohort = 1
[[groups]]
name = "a"
count = 1
budget = "64 KiB"
[compute]
backend = "loop"
"""


@pytest.fixture
def fleet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a valid fleet file in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fleet.toml").write_text(FLEET)
    return "fleet.toml"


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures: None) -> None:
    """No command draws a figure here."""


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[RunStore], None]], list[Any]]:
    """Puts a back end in place that opens the records, then behaves as it is told; returns its calls."""

    def put(behave: Callable[[RunStore], None]) -> list[Any]:
        calls: list[Any] = []

        def back_end(config, folder, *, resume, data_dir, weights_dir, watcher):
            calls.append((config, folder, resume, data_dir))
            with RunStore.open(folder) if resume else RunStore.create(folder, config) as store:
                behave(store)

        monkeypatch.setattr(run, "backend_of", lambda _name: back_end)
        return calls

    return put
