"""Names of a user's own code and of other libraries in a fleet file, pinned.

Names of code get a hash, and the texts of files are included; names of a library get the version of its package.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fed_asi import libraries, own_code
from fed_asi.errors import ConfigError

# Where a fleet file may name a user's own code.
KEYS = (
    ("model", "name"),
    ("data", "source"),
    ("sharding", "scheme"),
    ("method", "name"),
    ("method", "over_budget"),
    ("aggregate", "strategy"),
    ("upload", "codec"),
)
# Where it may name things of another library.
OF_LIBRARIES = {"model.name", "data.source", "sharding.scheme"}
CODE = "code"  # the key of the resolved settings that holds files' texts

_Place = tuple[str, Any, Any]  # (place for people, table or list, key in it)


def pin_(raw: dict[str, Any], folder: Path) -> tuple[list[str], set[str]]:
    """Pin the names in a fleet file's content; return the problems, and the places where they are.

    folder: that of the file. No code is run.
    """
    problems, broken = list[str](), set[str]()
    if CODE in raw:
        problems.append(f"{CODE}: unknown key; code is named where it is used, such as model.name")
        del raw[CODE]
    files: dict[str, str] = {}
    for where, owner, key in _places(raw):
        try:
            pinned = _pinned(owner[key], folder)
        except ConfigError as error:
            problems.append(f"{where}: {error}")
            broken.add(where)
            continue
        owner[key] = pinned.name
        files |= pinned.files
    if files:
        raw[CODE] = files
    return problems, broken


def _pinned(name: str, folder: Path) -> own_code.Pinned:
    if libraries.is_library(name):
        return own_code.Pinned(libraries.pin(name), {})
    return own_code.pin(name, folder)


def files_of(raw: dict[str, Any], folder: Path) -> list[Path]:
    """Return the files of code that a fleet file's content names, each once."""
    names = [owner[key] for _, owner, key in _places(raw)]
    named = [own_code.file_of(name) for name in names if not libraries.is_library(name)]
    return [folder / one for one in dict.fromkeys(named) if one is not None]


def packages_of(raw: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (place, package) for each name that belongs to an installed module or a library."""
    named = [(where, owner[key]) for where, owner, key in _places(raw)]
    return [
        (where, name.partition(":")[0].partition("@")[0].partition(".")[0])
        for where, name in named
        if libraries.is_library(name) or not own_code.file_of(name)
    ]


def _places(raw: dict[str, Any]) -> Iterator[_Place]:
    for table, key in KEYS:
        yield from _own(f"{table}.{key}", raw.get(table), key)
    methods = raw["method"].get("methods") if isinstance(raw.get("method"), dict) else None
    for place, _ in enumerate(methods if isinstance(methods, list) else ()):
        yield from _own(f"method.methods[{place}]", methods, place)
    for kind in ("groups", "devices"):
        owners = raw.get(kind)
        for place, owner in enumerate(owners if isinstance(owners, list) else ()):
            yield from _own(f"{kind}[{place}].device", owner, "device")
            device = owner.get("device") if isinstance(owner, dict) else None
            yield from _own(f"{kind}[{place}].device.preset", device, "preset")


def _own(where: str, owner: Any, key: Any) -> Iterator[_Place]:
    """Yield a place if it holds a name of user code."""
    held = isinstance(owner, list if isinstance(key, int) else dict) and (
        isinstance(key, int) or key in owner
    )
    name = owner[key] if held else None
    if isinstance(name, str) and (
        own_code.is_own(name) or (where in OF_LIBRARIES and libraries.is_library(name))
    ):
        yield where, owner, key
