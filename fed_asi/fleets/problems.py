"""The wording of problems that pydantic finds in a fleet file: one line a place, saying what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from fed_asi.errors import nearest
from fed_asi.units import shown

_WORDS = {
    "integer": "a whole number",
    "string": "text",
    "dictionary": "a table",
    "number": "a number",
    "boolean": "true or false",
    "tuple": "a list",
    "array": "a list",
    "an object": "a table",
}


def by_place(errors: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Yield each wrong place once: for a union, pydantic reports every branch, with its name in the path."""
    places: dict[tuple[int | str, ...], ErrorDetails] = {}
    for error in errors:
        loc = tuple(part for part in error["loc"] if not _is_branch(part))
        if (
            error["type"] == "extra_forbidden"
        ):  # the last part is a key of the file, even if it looks like a branch
            loc = (*(part for part in error["loc"][:-1] if not _is_branch(part)), error["loc"][-1])
        places.setdefault(loc, {**error, "loc": loc})
    return iter(places.values())


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and ("[" in part or part in {"int", "float", "str", "none"})


def line(error: ErrorDetails, known_keys: Iterable[str] = ()) -> str:
    """Return one wrong place as one line: where, what, and what would be right.

    known_keys: those of the table, in case the place is an unknown key.
    """
    where = place(error["loc"])
    if error["type"] == "extra_forbidden":
        return unknown_key(where, str(error["loc"][-1]), known_keys)
    if error["type"] == "missing":
        return missing(where)
    if error["type"] == "value_error":
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    known = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    if error["type"] == "literal_error" and known:
        return unknown_value(where, error["input"], known)
    if error["type"] == "model_type":
        return f"{where}: must be a table, not {shown(error['input'])}"
    message = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{where}: must be {_WORDS.get(message, message)}, not {shown(error['input'])}"


def unknown_key(where: str, key: str, known: Iterable[str]) -> str:
    """Return the line for an unknown key."""
    return f"{where}: unknown key; {nearest(key, known)}"


def missing(where: str) -> str:
    """Return the line for a required key that is missing."""
    return f"{where}: missing"


def unknown_value(where: str, value: object, known: Iterable[str]) -> str:
    """Return the line for a value that is not one of the known ones."""
    return f"{where}: unknown {shown(value)}; {nearest(str(value), known)}"


def place(path: Sequence[int | str]) -> str:
    """Return a place for people, such as groups[0].budget."""
    words = [
        f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else repr(part)}"
        for part in path
    ]
    return "".join(words).removeprefix(".") or "file"


def keys_at(root: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Return the keys of the table at a path, such as ("groups", 0), in a file described by `root`."""
    model = root
    for part in path:
        if part in model.model_fields:
            model = next(models_in(model.model_fields[part].annotation), model)
    return list(model.model_fields)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that occur in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from models_in(inner)
