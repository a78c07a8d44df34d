"""Variants grouped into families: those that differ only in one size form one line, in figures and legends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fed_asi.errors import ConfigError
from fed_asi.studies.cells import Setting
from fed_asi.units import parse_bytes

Settings = Mapping[str, Setting]


@dataclass(frozen=True, slots=True)
class Step:
    """One variant of a family. label, size: the setting in which it differs, as written and as a number."""

    variant: str
    label: str
    size: float | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """Variants that differ only in one size, in ascending order, or a single variant that differs in more.

    key: the setting that is the size; None for a single variant.
    """

    label: str
    steps: tuple[Step, ...]
    key: str | None = None


def families(settings: Mapping[str, Settings]) -> tuple[Family, ...]:
    """Return the variants grouped into families, ordered by their first members.

    settings: variant -> the grid's keys and their values. The size is the key with the most values.
    """
    ladder = _ladder(settings)
    if ladder is None:
        return tuple(_alone(name) for name in settings)
    names = _alike(settings, ladder)
    along = _along(settings, ladder)
    varied = [
        key
        for key in dict.fromkeys(key for held in settings.values() for key in held)
        if key not in along and len({_exact(held.get(key)) for held in settings.values()}) > 1
    ]
    made = [_family(members, ladder, varied, settings) for members in names]
    if len({one.label for one in made}) < len(made):
        made = [replace(one, label=_ends(one)) for one in made]
    return tuple(made)


def _alone(name: str) -> Family:
    return Family(name, (Step(name, name),))


def _family(
    names: Sequence[str], ladder: str, varied: Sequence[str], settings: Mapping[str, Settings]
) -> Family:
    if len(names) == 1:
        return _alone(names[0])
    held = settings[names[0]]
    label = ", ".join(_said(key, held[key]) for key in varied if key in held)
    steps = [Step(name, text(settings[name][ladder]), _size(settings[name][ladder])) for name in names]
    return Family(label or ladder, tuple(sorted(steps, key=lambda one: one.size or 0.0)), ladder)


def _ends(one: Family) -> str:
    """Return a unique label for a family: its first and last variant."""
    return one.label if len(one.steps) == 1 else f"{one.steps[0].variant} to {one.steps[-1].variant}"


def _said(key: str, value: Setting) -> str:
    return value if isinstance(value, str) else f"{key} {text(value)}"


def text(value: Setting) -> str:
    """Return a setting as in TOML but without quotes; empty if it is not set."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _ladder(settings: Mapping[str, Settings]) -> str | None:
    """Return the key that is a size wherever it is set and has most values among otherwise equal variants."""
    longest: dict[str, int] = {}
    for key in dict.fromkeys(key for held in settings.values() for key in held):
        if all(_size(held[key]) is not None for held in settings.values() if key in held):
            steps = max(len(names) for names in _alike(settings, key))
            if steps > 1:
                longest[key] = steps
    return max(longest, key=lambda key: longest[key], default=None)


def _alike(settings: Mapping[str, Settings], ladder: str) -> list[list[str]]:
    """Return groups of variants that have the ladder's key and are otherwise equal; each other variant alone."""
    together: dict[object, list[str]] = {}
    along = _along(settings, ladder)
    for name, held in settings.items():
        others = frozenset((key, _exact(value)) for key, value in held.items() if key not in along)
        together.setdefault(others if ladder in held else name, []).append(name)
    return list(together.values())


def _along(settings: Mapping[str, Settings], ladder: str) -> set[str]:
    """Return the ladder's key and the keys of bytes that follow from it, as a device's flash does from its RAM."""
    found = {ladder}
    for key in {key for held in settings.values() for key in held} - found:
        both = [(held[ladder], held[key]) for held in settings.values() if ladder in held and key in held]
        pairs = {(_exact(size), _exact(follower)) for size, follower in both}
        if all(_in_bytes(one) for pair in both for one in pair) and len(pairs) == len({s for s, _ in pairs}):
            found.add(key)
    return found


def _in_bytes(value: Setting) -> bool:
    return isinstance(value, str) and _size(value) is not None


def _size(value: Setting) -> float | None:
    """Return a setting as a number; None if it is no size. "unlimited" is the largest."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    try:
        size = parse_bytes(value)
    except ConfigError:
        return None
    return math.inf if size is None else float(size)


def _exact(value: Setting) -> tuple[str, str]:
    return type(value).__name__, str(value)
