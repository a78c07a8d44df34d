"""What a device has besides memory: how fast it computes and moves bytes, its link, power and battery.

A preset is a TOML file of `NUMBERS`, each with its source:
    dense_per_second = { value = 6.2e9, source = "ncnn", how = "fitted to its table" }
    [sources.ncnn]
    url = "https://..."
    licence = "BSD-3-Clause"
The source "estimate" needs no entry, but `how` must say how the number was estimated. The package's presets are the
files of `presets/`, found by name; `register` adds to them, and a fleet file may name a file of its own.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from fed_asi import own_code
from fed_asi.errors import ConfigError, nearest
from fed_asi.units import parse_bytes, shown

VERSION = 1
ESTIMATE = "estimate"
FOLDER = Path(__file__).parent / "presets"
MOST = 1e18  # beyond any device


@dataclass(frozen=True, slots=True)
class Hardware:
    """A device's rates, link, power and memory; None: unknown, and so is all that depends on it.

    *_per_second: float32 and int8 multiply-accumulates, elements handled one by one, bytes moved in memory, bits down
    and up the link. call_seconds: to start a kernel. latency_seconds: of a message each way.
    *_watts: drawn by the whole device in that state. mac_joules, byte_joules: energy by operation, instead of
    compute_watts. battery_joules: what a full battery gives to training; None: on mains. charge_watts: gained while
    idle.
    ram_bytes, flash_bytes: in total.
    """

    name: str = ""
    dense_per_second: float | None = None
    depthwise_per_second: float | None = None
    elements_per_second: float | None = None
    int8_dense_per_second: float | None = None
    int8_depthwise_per_second: float | None = None
    int8_elements_per_second: float | None = None
    bytes_per_second: float | None = None
    call_seconds: float | None = None
    down_bits_per_second: float | None = None
    up_bits_per_second: float | None = None
    latency_seconds: float | None = None
    idle_watts: float | None = None
    compute_watts: float | None = None
    radio_watts: float | None = None
    mac_joules: float | None = None
    byte_joules: float | None = None
    battery_joules: float | None = None
    charge_watts: float | None = None
    ram_bytes: int | None = None
    flash_bytes: int | None = None

    @property
    def missing(self) -> list[str]:
        """The numbers that a clock needs and this device lacks."""
        return [name for name in CLOCK if getattr(self, name) is None]

    @property
    def has_clock(self) -> bool:
        """Whether this device's seconds can be computed."""
        return not self.missing

    @property
    def lacking_power(self) -> list[str]:
        """The keys that are missing to compute its joules."""
        draws = {
            "compute_watts": self.compute_watts is not None or self.mac_joules is not None,
            "radio_watts": self.radio_watts is not None,
        }
        return [key for key, known in draws.items() if not known]

    @classmethod
    def of(cls, name: str, numbers: Mapping[str, Any]) -> Self:
        """Return the hardware with these numbers by key. Raises ConfigError with every wrong one."""
        wrong = [problem for key, value in numbers.items() if (problem := problem_of(key, value))]
        if wrong:
            raise ConfigError([f"{name}: {problem}" for problem in wrong])
        return cls(name, **{_FIELDS[key]: _parsed(key, value) for key, value in numbers.items()})

    def with_numbers(self, numbers: Mapping[str, Any]) -> Hardware:
        """Return this hardware with some numbers replaced, by key."""
        own = Hardware.of(self.name, numbers)
        return replace(self, **{_FIELDS[key]: getattr(own, _FIELDS[key]) for key in numbers})


_BYTES = {"ram": "ram_bytes", "flash": "flash_bytes"}  # keys with a unit in their text
_FIELDS = {
    {at: key for key, at in _BYTES.items()}.get(one.name, one.name): one.name for one in fields(Hardware)[1:]
}
NUMBERS = tuple(_FIELDS)  # the keys of a preset and of a fleet file's device
RATES = tuple(key for key in NUMBERS if key.endswith("_per_second"))
CLOCK = (
    "dense_per_second", "depthwise_per_second", "elements_per_second", "bytes_per_second", "call_seconds",
    "down_bits_per_second", "up_bits_per_second", "latency_seconds",
)  # fmt: skip
_MAY_BE_ZERO = ("call_seconds", "latency_seconds", "idle_watts", "charge_watts", "mac_joules", "byte_joules")


def problem_of(key: str, value: Any) -> str | None:
    """Return what is wrong with a number of a device, beginning with its key; None if it is right."""
    if key not in _FIELDS:
        return f"{key}: unknown key; {nearest(key, NUMBERS)}"
    if key in _BYTES:
        try:
            return f"{key}: must be a size" if parse_bytes(value) is None else None
        except ConfigError as error:
            return f"{key}: {error}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return f"{key}: must be a number, not {shown(value)}"
    if value < 0 or value > MOST or (value == 0 and key not in _MAY_BE_ZERO):
        least = "0 or more" if key in _MAY_BE_ZERO else "above 0"
        hint = "; such a device would never finish anything" if key in RATES and value == 0 else ""
        return f"{key}: must be {least} and at most {MOST:g}, not {shown(value)}{hint}"
    return None


def _parsed(key: str, value: Any) -> Any:
    return parse_bytes(value) if key in _BYTES else float(value)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a number is from. how: how it was derived from the source, or estimated."""

    url: str
    licence: str
    how: str

    @property
    def is_estimate(self) -> bool:
        """Whether the number is not from a public document."""
        return self.url == ESTIMATE


@dataclass(frozen=True, slots=True)
class Preset:
    """A device by name, and the source of each of its numbers, by key."""

    title: str
    hardware: Hardware
    sources: Mapping[str, Source]


FORM = 'Hardware.of("mine", {"dense_per_second": 1e9, ...}) of fed_asi.fleets.hardware, or a Preset'
_REGISTERED: dict[str, Preset] = {}


def register(name: str, preset: Preset) -> None:
    """Let fleet files name a device; a name already taken is replaced."""
    _REGISTERED[name] = preset


def names() -> list[str]:
    """Return the names a fleet file may give."""
    return sorted({*_REGISTERED, *(path.stem for path in FOLDER.glob("*.toml"))})


def preset(name: str) -> Preset:
    """Return the device of that name, or of that TOML file. Raises ConfigError, naming the nearest ones."""
    if name in _REGISTERED:
        return _REGISTERED[name]
    if is_file(name):
        return load(Path(name))
    if own_code.is_own(name):
        return _own(name)
    if name not in names():
        raise ConfigError(f"unknown device {shown(name)}; {nearest(name, names())}")
    return _shipped(name)


def _own(name: str) -> Preset:
    """Return a user's own device, given as a Preset or as numbers only."""
    found = own_code.load(name)
    if isinstance(found, Hardware):
        shown_as = own_code.shown_name(name)
        return Preset(shown_as, found if found.name else replace(found, name=shown_as), {})
    if not isinstance(found, Preset):
        raise ConfigError(f"{own_code.shown_name(name)} is not a device; write it as {FORM}")
    return found


def is_file(name: str) -> bool:
    """Return whether a device is named by its file."""
    return name.endswith(".toml")


@lru_cache(maxsize=64)
def _shipped(name: str) -> Preset:
    return load(FOLDER / f"{name}.toml")


def load(path: Path) -> Preset:
    """Return the preset in a file. Raises ConfigError with all of its problems."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise ConfigError(f"device file {shown(str(path))} cannot be read: {reason}") from None
    problems = list(_problems(content))
    if problems:
        raise ConfigError([f"{path.name}: {problem}" for problem in problems])
    numbers = {key: entry["value"] for key, entry in content.items() if key in _FIELDS}
    found = {
        key: _source(entry, content.get("sources", {})) for key, entry in content.items() if key in _FIELDS
    }
    return Preset(str(content.get("title", path.stem)), Hardware.of(path.stem, numbers), found)


def _problems(content: Mapping[str, Any]) -> Iterator[str]:
    if content.get("version") != VERSION:
        yield f"version: {shown(content.get('version'))}; this release reads {VERSION}"
    known = content.get("sources", {})
    for key, entry in content.items():
        if key in {"version", "title", "sources"}:
            continue
        if not isinstance(entry, Mapping) or "value" not in entry:
            yield f"{key}: must be {{ value = ..., source = ... }}, not {shown(entry)}"
            continue
        if (problem := problem_of(key, entry["value"])) is not None:
            yield problem
        source = entry.get("source")
        if source == ESTIMATE and not entry.get("how"):
            yield f"{key}: an estimate must say how it was made"
        elif source != ESTIMATE and (not isinstance(known, Mapping) or "url" not in known.get(source, {})):
            yield f'{key}: source {shown(source)} has no url under [sources]; or "{ESTIMATE}"'


def _source(entry: Mapping[str, Any], known: Mapping[str, Mapping[str, str]]) -> Source:
    how = str(entry.get("how", ""))
    if entry["source"] == ESTIMATE:
        return Source(ESTIMATE, "", how)
    said = known[entry["source"]]
    return Source(said["url"], said.get("licence", ""), how)


def to_toml(title: str, numbers: Mapping[str, tuple[float | str, str]]) -> str:
    """Return the text of a preset's file. numbers: by key, value and how it was found; all are the user's estimates."""
    lines = [f"version = {VERSION}", f"title = {_text(title)}"]
    for key, (value, how) in numbers.items():
        written = _text(value) if isinstance(value, str) else repr(float(value))
        lines.append(f'{key} = {{ value = {written}, source = "{ESTIMATE}", how = {_text(how)} }}')
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    safe = (
        "".join(one if one.isprintable() else " " for one in value).replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{safe}"'
