"""Byte sizes as people write them: "256 KiB" <-> 262144."""

from __future__ import annotations

import re

from fed_asi.errors import ConfigError

MOST_BYTES = 2**63 - 1  # what records can hold
UNITS = {"B": 1, "KIB": 1024, "MIB": 1024**2, "GIB": 1024**3}
_PATTERN = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_bytes(value: str | int | None) -> int | None:
    """Return a size in bytes, or None for "unlimited".

    value: an int of bytes, or text such as "256 KiB", "1.5 MiB", "4096", "unlimited".
    Raises ConfigError for anything else; KB and MB are refused because they mean two things.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ConfigError(f'size {shown(value)} is neither bytes nor text such as "256 KiB"')
    if isinstance(value, int):
        return _bounded(value, value)
    if value.strip().lower() == "unlimited":
        return None
    match = _PATTERN.fullmatch(value)
    if match is None:
        raise ConfigError(f'size {shown(value)} is not understood; write "256 KiB", bytes, or "unlimited"')
    unit = match.group(2).upper() or "B"
    if unit in {"KB", "MB", "GB"}:
        raise ConfigError(
            f"size {shown(value)}: {match.group(2)} means 1000 to some and 1024 to others; write {unit[0]}iB"
        )
    if unit not in UNITS:
        raise ConfigError(
            f"size {shown(value)}: unknown unit {shown(match.group(2))}; use B, KiB, MiB or GiB"
        )
    size = float(match.group(1)) * UNITS[unit]
    return _bounded(round(size) if size < 2 * MOST_BYTES else 2 * MOST_BYTES, value)


def _bounded(size: int, written: str | int) -> int:
    if size <= 0:
        raise ConfigError(f"size {shown(written)} must be above 0 bytes")
    if size > MOST_BYTES:
        raise ConfigError(
            f'size {shown(written)} is more than 2**63 - 1 bytes; write "unlimited" for no limit'
        )
    return size


def shown(value: object) -> str:
    """Return a value as a message shows it: on one line, cut to a readable length."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers with thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def format_bytes(size: int | None) -> str:
    """Return a size for people, such as "91.5 KiB"; None is "unlimited"."""
    if size is None:
        return "unlimited"
    for unit, scale in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if abs(size) >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"


def told_apart(one: int, other: int) -> tuple[str, str]:
    """Return two sizes for people, in bytes where different sizes would read the same: ("160.0 KiB", "12.0 KiB")."""
    texts = format_bytes(one), format_bytes(other)
    return texts if one == other or texts[0] != texts[1] else (f"{one:,} B", f"{other:,} B")


TIMES = (
    (86400 * 3, "days", 86400.0),
    (3600 * 2, "hours", 3600.0),
    (600, "minutes", 60.0),
)  # from how many seconds on


def time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit that suits a time, and its length in seconds."""
    return next(((name, each) for least, name, each in TIMES if seconds >= least), ("seconds", 1.0))


def format_seconds(seconds: float) -> str:
    """Return a time for people, with three digits: "4.2 seconds", "2.5 hours"."""
    name, each = time_unit(seconds)
    return f"{seconds / each:.3g} {name}"


def energy_unit(joules: float) -> tuple[str, float]:
    """Return the unit that suits an energy, and its size in joules."""
    return next(((name, each) for name, each in (("MJ", 1e6), ("kJ", 1e3)) if joules >= each), ("J", 1.0))


def format_joules(joules: float) -> str:
    """Return an energy for people, with three digits: "47.3 J", "1.2 MJ"."""
    name, each = energy_unit(joules)
    return f"{joules / each:.3g} {name}"
