"""Shared by the tests of fleet files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def _write(text: str, name: str = "fleet.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write
