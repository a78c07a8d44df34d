"""The versions that decide a run's last bits."""

from __future__ import annotations

import contextlib
import platform
from importlib import metadata


def versions() -> dict[str, str]:
    """Return the versions that decide a run's last bits."""
    packages = ("fed-asi", "torch", "torchvision", "numpy", "flwr", "ray")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
