"""Tests of data sets have no data folder, an empty cache, and no network connection."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> socket.socket:
        raise OSError("no network")

    monkeypatch.delenv("FED_ASI_DATA_DIR", raising=False)
    monkeypatch.setenv("FED_ASI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(socket, "create_connection", refuse)
