"""The versions that decide a run's last bits."""

from __future__ import annotations

import platform
from importlib import metadata

import torch

from fed_asi.results.versions import versions


def test_everything_that_decides_the_last_bits_is_named():
    found = versions()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert (found["python"], found["machine"]) == (platform.python_version(), platform.machine())
    assert {"fed-asi", "torchvision", "numpy", "flwr", "ray"} <= found.keys()


def test_a_package_that_is_not_installed_is_left_out(monkeypatch):
    def version(name: str) -> str:
        if name in {"flwr", "ray"}:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    found = versions()
    assert not {"flwr", "ray"} & found.keys()
    assert found["torch"] == "1.0"
