"""Stand-ins for libraries that tests do without: a module in sys.modules, and the version that pip would report."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fed_asi.models import download


def installed(
    monkeypatch: pytest.MonkeyPatch, folder: Path, package: str, version: str = "1.0.31", **holds: Any
) -> None:
    """Let a package be found as if it were installed in a folder, with a module of its name that holds these."""
    module = ModuleType(package.replace("-", "_"))
    vars(module).update(holds)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    about = folder / f"{module.__name__}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))


def without_a_hub(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Let no hub be asked; return its library's constants."""
    constants = SimpleNamespace(HF_HUB_OFFLINE=False, ENDPOINT="https://hub.invalid")
    hub = ModuleType("huggingface_hub")
    hub.constants = constants  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(download, "reachable", lambda _url: False)
    return constants
