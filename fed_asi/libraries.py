"""Networks and data sets of other libraries, by names such as "timm:resnet18" and "hf:uoft-cs/cifar10".

Each prefix has one file, in the room of what it names, which registers it here with the package that it needs. `pin`
adds the installed version of the package to a name, as in "timm@1.0.20:resnet18"; such a name requires that version.
A package is imported by `find`, never before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any, TypeVar

from fed_asi.errors import ConfigError, first_line
from fed_asi.texts import clipped, visible

Find = Callable[[str], Any]
_Found = TypeVar("_Found", bound=Find)
_NAME = re.compile(r"([a-z][a-z0-9-]*)(?:@([\w.+!-]+))?:(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Library:
    """A prefix, the kind of thing it names, the package it needs, and the function that finds one by name."""

    prefix: str
    kind: str
    package: str
    find: Find


_LIBRARIES: dict[str, Library] = {}


def register(prefix: str, kind: str, package: str) -> Callable[[_Found], _Found]:
    """Return a decorator that registers a function to find what a prefix names, given the part after the colon.

    kind: such as "network". package: its name for `pip`; the extra of fed-asi that installs it is named like the
    prefix.
    """

    def known(find: _Found) -> _Found:
        _LIBRARIES[prefix] = Library(prefix, kind, package, find)
        return find

    return known


def is_library(name: str) -> bool:
    """Return whether a name belongs to another library, with or without a version."""
    return _parsed(name) is not None


def shown_name(name: str) -> str:
    """Return a name without its version; other names are returned unchanged."""
    found = _NAME.fullmatch(name)
    return f"{found[1]}:{found[3]}" if found else name


def pin(name: str) -> str:
    """Return a library's name with the installed version of its package, which is not imported.

    Raises ConfigError where the package is missing or its version is not the one in the name.
    """
    library, version, what = _asked(name)
    here = _version(library)
    if version not in {None, here}:
        raise ConfigError(
            f"{visible(shown_name(name))} was asked of {library.package} {visible(str(version))}, here is {here}: "
            "install that version, or start again"
        )
    return f"{library.prefix}@{here}:{what}"


def find(kind: str, name: str) -> Any:
    """Return what a library has by that name.

    Raises ConfigError where it is of another kind, where the library does not have it, and where the package is
    missing, has another version or cannot be imported.
    """
    library, _, what = _asked(name)
    if library.kind != kind:
        raise ConfigError(
            f"{visible(shown_name(name))}: {library.prefix} names a {library.kind}, not a {kind}"
        )
    pin(name)
    try:
        return library.find(what)
    except ImportError as error:
        raise ConfigError(
            f"{visible(shown_name(name))}: {library.package} cannot be imported: {clipped(first_line(error), 200)}"
        ) from error


def _version(library: Library) -> str:
    try:
        return metadata.version(library.package)
    except metadata.PackageNotFoundError:
        raise ConfigError(
            f"a name of {library.prefix} needs {library.package}, which is missing: "
            f'pip install "fed-asi[{library.prefix}]"'
        ) from None


def _asked(name: str) -> tuple[Library, str | None, str]:
    found = _parsed(name)
    if found is None:
        raise ConfigError(f"{visible(name)} does not name a library: such a name begins with {_prefixes()}")
    return found


def _prefixes() -> str:
    return ", ".join(f"{prefix}:" for prefix in sorted(_LIBRARIES))


def _parsed(name: str) -> tuple[Library, str | None, str] | None:
    found = _NAME.fullmatch(name)
    library = _LIBRARIES.get(found[1]) if found else None
    return (library, found[2], found[3]) if found and library else None
