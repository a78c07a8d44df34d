"""Where a run's numbers are sent while it goes on, in addition to its records: TensorBoard, MLflow, Weights & Biases.

A new sink is one file here, or a class of your own, registered. A sink that fails is dropped with a note; the run
goes on, and its records are complete.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeVar

from fed_asi.errors import ConfigError, nearest


class Sink(Protocol):
    """What a run calls. It is made before the run begins, with a folder for its files within the run's folder."""

    def __init__(self, folder: Path) -> None:
        """Get ready. Raises ImportError where the package it needs is missing."""

    def begin(self, name: str, config: str, resumed: bool) -> None:
        """Take the run's name and its settings as JSON, before its first round. resumed: rounds were sent before."""

    def round(self, round: int, values: Mapping[str, float]) -> None:
        """Take a round's numbers by name; round 0 is the model before any training."""

    def end(self, finished: bool) -> None:
        """Release what is held. finished: the run neither failed nor was stopped."""


SINKS: dict[str, Callable[[Path], Sink]] = {}
_Class = TypeVar("_Class", bound=type[Sink])


def register(name: str) -> Callable[[_Class], _Class]:
    """Return a decorator that registers a sink by its name, which is also that of its folder in a run's."""

    def known(cls: _Class) -> _Class:
        SINKS[name] = cls
        return cls

    return known


def make(name: str, run: Path) -> Sink:
    """Return a sink of a run's folder. Raises ConfigError, one line, where it is unknown or its package is missing."""
    if name not in SINKS:
        raise ConfigError(f"unknown sink {name!r}; {nearest(name, SINKS)}")
    try:
        return SINKS[name](run / name)
    except ImportError as error:
        raise ConfigError(
            f'sink {name}: {error.name or name} is missing: pip install "fed-asi[{name}]"'
        ) from error


for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
