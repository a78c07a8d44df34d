"""Objects of a user's own code, by the names that a fleet file gives them.

"package.module:name" is an object of an installed module, "./file.py:name" one of a file. `pin` adds a hash of the
code to a name, as in "net.py@0123456789abcdef:build"; such a name means exactly that code, wherever the file is. The
text of a file is stored with a run's settings, so that every worker has it and a resumed run uses the code it began
with. A module is imported instead, and must be the same on every machine.

`pin` and `know` run no user code; `load` does. Reading a run's records never loads any.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import linecache
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from fed_asi import libraries
from fed_asi.errors import ConfigError, first_line, nearest
from fed_asi.texts import clipped, visible
from fed_asi.units import format_bytes

DIGITS = 16  # of a SHA-256, in hexadecimal
MOST_BYTES = 2**20  # of a file: it is in every record of a run
_PINNED = re.compile(rf"(.*)@([0-9a-f]{{{DIGITS}}})", re.DOTALL)

_known: dict[str, str] = {}  # address -> text of a file
_made: dict[str, ModuleType | ConfigError] = {}  # address -> the module, or the error it raised
_making = threading.RLock()  # a file is run once, even if several threads ask for it


@dataclass(frozen=True, slots=True)
class _Named:
    """The parts of a name: the module or file, the hash of its code if pinned, and the object in it."""

    where: str
    digest: str | None
    what: str

    @property
    def is_file(self) -> bool:
        return self.where.endswith(".py")

    @property
    def file(self) -> str:
        """The last part of a file's path; the whole name of a module."""
        return Path(self.where).name if self.is_file else self.where

    @property
    def address(self) -> str:
        return f"{self.file}@{self.digest}"


@dataclass(frozen=True, slots=True)
class Pinned:
    """A pinned name, and for a file its text by address."""

    name: str
    files: Mapping[str, str]


def is_own(name: str) -> bool:
    """Return whether a name belongs to a user's own code: "package.module:name" or "./file.py:name".

    Names of other libraries, such as "timm:resnet18", do not: see `libraries`.
    """
    return _parsed(name) is not None


def shown_name(name: str) -> str:
    """Return a name for people: without hash or version, and of a file's path only the last part."""
    found = _parsed(name)
    return visible(libraries.shown_name(name) if found is None else f"{found.file}:{found.what}")


def file_of(name: str) -> str | None:
    """Return the path of the file in a name; None for the name of a module."""
    found = _asked(name)
    return found.where if found.is_file else None


def pin(name: str, folder: Path) -> Pinned:
    """Return a name pinned to the hash of its code, which is not run.

    folder: what a relative path starts from. Raises ConfigError where there is no such file or package, and where the
    name already has a hash that is not that of the code.
    """
    found = _asked(name)
    if found.is_file:
        text = _read(found.where, folder)
        digest, files = digest_of(text), {f"{found.file}@{digest_of(text)}": text}
    else:
        digest, files = package_digest(_package(found)), {}
    if found.digest not in {None, digest}:
        raise ConfigError(
            f"{visible(found.file)} has changed: its code is now {visible(found.file)}@{digest}"
        )
    return Pinned(f"{found.file}@{digest}:{found.what}", files)


def know(files: Mapping[str, str]) -> None:
    """Make pinned files loadable in this process, running none. Raises ConfigError where a text has another hash."""
    for address, text in files.items():
        if address.rpartition("@")[2] != digest_of(text):
            raise ConfigError(f"{visible(address)} holds other code than its name says")
        _known[address] = text


def load(name: str) -> Any:
    """Return the object of that name, running its code if this process has not done so yet.

    Raises ConfigError for whatever the code raises, naming the line of the user's file, and where it has no such
    object.
    """
    found = _asked(name)
    if found.digest is None:
        pinned = pin(name, Path())
        know(pinned.files)
        found = _asked(pinned.name)
    here: Any = _module(found)
    names = [one for one in vars(here) if not one.startswith("_")]
    for part in found.what.split("."):
        try:
            here = getattr(here, part)
        except AttributeError:
            hint = nearest(found.what, names)
            raise ConfigError(f"{visible(found.file)} has no {found.what!r}; {clipped(hint, 200)}") from None
    return here


def check_call(name: str, found: object, form: str, *arguments: object, **named: object) -> None:
    """Raise ConfigError, with the expected form, where an object cannot be called with such arguments."""
    if not callable(found):
        raise ConfigError(f"{shown_name(name)} is {_kind(found)}, not a function; write it as {form}")
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):  # functions written in C may not tell
        return
    try:
        signature.bind(*arguments, **named)
    except TypeError:
        takes = clipped(signature, 100)
        raise ConfigError(f"{shown_name(name)} takes {takes}; write it as {form}") from None


def check_class(name: str, found: object, base: type[Any], form: str) -> None:
    """Raise ConfigError, with the expected form, where an object is not a subclass of `base`."""
    if not isinstance(found, type):
        raise ConfigError(f"{shown_name(name)} is {_kind(found)}, not a class; write it as {form}")
    if not issubclass(found, base):
        raise ConfigError(
            f"{shown_name(name)} is a class without the base {base.__name__}; write it as {form}"
        )


def place_of(error: BaseException) -> str:
    """Return the line of a user's file that raised an error, as ", net.py, line 5"; empty if none did."""
    lines = [one for one in traceback.extract_tb(error.__traceback__) if one.filename in _known]
    return f", {visible(lines[-1].filename.rpartition('@')[0])}, line {lines[-1].lineno}" if lines else ""


def owner_of(error: BaseException) -> str:
    """Return whose mistake an error is: that of "net.py, line 5", or of "this program"."""
    return place_of(error).removeprefix(", ") or "this program"


def digest_of(text: str) -> str:
    """Return the hash of a file's text, as pinned names have it."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:DIGITS]


@lru_cache(maxsize=64)
def package_digest(package: str) -> str:
    """Return the hash of all Python files of an installed package, or of a module's one file; runs none of them.

    Computed once a process, as imported code stays what it is. Raises ConfigError where it is not installed.
    """
    try:
        spec = None if package == "__main__" else importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ConfigError(f"no module {package} is installed here")
    digest = hashlib.sha256()
    for folder in spec.submodule_search_locations or ():
        for path in sorted(Path(folder).rglob("*.py")):
            digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    if not spec.submodule_search_locations and spec.has_location:
        digest.update(Path(str(spec.origin)).read_bytes())
    return digest.hexdigest()[:DIGITS]


def _parsed(name: str) -> _Named | None:
    head, _, what = name.rpartition(":")
    pinned = _PINNED.fullmatch(head)
    where, digest = (pinned[1], pinned[2]) if pinned else (head, None)
    if libraries.is_library(name):
        return None
    is_module = all(part.isidentifier() for part in where.split("."))
    if not all(part.isidentifier() for part in what.split(".")):
        return None
    return _Named(where, digest, what) if is_module or where.endswith(".py") else None


def _asked(name: str) -> _Named:
    found = _parsed(name)
    if found is None:
        raise ConfigError(
            f'{visible(name)} does not name code: write "./file.py:name" or "package.module:name"'
        )
    return found


def _package(found: _Named) -> str:
    package = found.where.partition(".")[0]
    try:
        package_digest(package)
    except ConfigError as error:
        raise ConfigError(f"{error}; a file is named ./{package}.py:{found.what}") from None
    return package


def _read(where: str, folder: Path) -> str:
    path = folder / where
    shown = visible(path.name)
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(
                f"{shown} is longer than {format_bytes(MOST_BYTES)}: too much to go with every run"
            )
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = nearest(path.name, [other.name for other in path.parent.glob("*.py")])
        hint = f"; {visible(near)}" if "mean" in near else ""
        raise ConfigError(f"no file {shown} in {visible(path.parent)}{hint}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{shown} is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown} cannot be read: {first_line(error)}") from None


def _module(found: _Named) -> ModuleType:
    with _making:
        if found.address not in _made:
            try:
                _made[found.address] = _run(found) if found.is_file else _imported(found)
            except ConfigError as error:
                _made[found.address] = error
        made = _made[found.address]
    if isinstance(made, ConfigError):
        raise made.with_traceback(None)
    return made


def _imported(found: _Named) -> ModuleType:
    package = _package(found)
    if package_digest(package) != found.digest:
        raise ConfigError(
            f"{package} is another version here than the one that was named ({found.digest}): install that, or start "
            "again"
        )
    try:
        return importlib.import_module(found.where)
    except (Exception, SystemExit) as error:  # somebody's own code may raise anything
        raise ConfigError(f"{found.where} cannot be imported: {_said(error)}") from error


def _run(found: _Named) -> ModuleType:
    """Return the module made from a file's text; it is in `sys.modules`, under a name that no import can ask for."""
    text = _known.get(found.address)
    if text is None:
        raise ConfigError(
            f"{visible(found.address)}: its code is not available here; name its file, ./{found.file}"
        )
    module = ModuleType(f"_own_{Path(found.file).stem}_{found.digest}")
    module.__package__ = ""  # there is nothing that a relative import could mean
    sys.modules[module.__name__] = module  # dataclasses and pickle look there
    linecache.cache[found.address] = (len(text), None, text.splitlines(keepends=True), found.address)
    try:
        exec(compile(text, found.address, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:  # somebody's own code may raise anything
        del sys.modules[module.__name__]
        line = _line(error, found.address)
        raise ConfigError(f"{visible(found.file)}{line}: {_said(error)}{_hint(error)}") from error
    return module


def _line(error: BaseException, address: str) -> str:
    """Return which line of the file an error is from."""
    if isinstance(error, SyntaxError) and error.filename == address:
        return f", line {error.lineno}"
    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == address]
    return f", line {lines[-1]}" if lines else ""


def _said(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else first_line(error)
    kind = type(error).__name__
    return kind if text == kind else f"{kind}: {clipped(text, 200)}"


def _hint(error: BaseException) -> str:
    if isinstance(error, ImportError):
        return (
            "; a file stands by itself: put what it needs into it, or make a package of it and install that"
        )
    if isinstance(error, NameError) and error.name == "__file__":
        return "; the code goes with the run, without its folder"
    return ""


def _kind(found: object) -> str:
    name = type(found).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
