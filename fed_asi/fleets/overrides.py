"""A value of a fleet file changed for one run, by `--set key=value` or by a study.

A key is a path from the file's root, "train.lr". Entries of a list are given by name, by index from 0, or all at once:
"groups.tight.budget", "groups.*.budget".
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator
from typing import Any

EVERY = "*"


def override_(raw: dict[str, Any], text: str) -> str | None:
    """Put one key=value into the file's content; return what is wrong with it, if anything."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip().split(".")[-1]:
        return f"--set {text!r}: write key=value, such as train.lr=0.1"
    wrong = put_(raw, key.strip(), _value(value.strip()))
    return None if wrong is None else f"--set {text!r}: {wrong}"


def put_(raw: dict[str, Any], key: str, value: Any) -> str | None:
    """Put a value at a key of the file's content; return what is wrong with the key, if anything."""
    tables, wrong = _tables(raw, key, make=True)
    for table in tables:
        table[key.rsplit(".", maxsplit=1)[-1]] = copy.deepcopy(value)
    return wrong


def drop_(raw: dict[str, Any], key: str) -> str | None:
    """Remove a key from the file's content, so that its default holds; return what is wrong if it is not there."""
    tables, wrong = _tables(raw, key, make=False)
    last = key.rsplit(".", maxsplit=1)[-1]
    found = [table.pop(last) for table in tables if last in table]
    return wrong or (None if found else f"there is no {key}")


def _tables(raw: dict[str, Any], key: str, make: bool) -> tuple[list[dict[str, Any]], str | None]:
    """Return the tables that hold a key's last part, or what is wrong with the key. make: create missing ones."""
    parents = key.split(".")[:-1]
    here: list[Any] = [raw]
    for depth, part in enumerate(parents):
        here = [found for one in here for found in _steps(one, part, make)]
        if not here:
            return [], f"there is no {'.'.join(parents[: depth + 1])}"
    odd = next((one for one in here if not isinstance(one, dict)), None)
    if odd is not None:
        kind = "a list; name one of its entries" if isinstance(odd, list) else "not a table"
        return [], f"{'.'.join(parents)} is {kind}"
    return here, None


def _steps(here: Any, part: str, make: bool) -> Iterator[Any]:
    if isinstance(here, dict):
        if make or part in here:
            yield here.setdefault(part, {})
    elif isinstance(here, list):
        entries = [entry for entry in here if isinstance(entry, dict)]
        if part == EVERY:
            yield from entries
            return
        for index, entry in enumerate(here):
            if isinstance(entry, dict) and (entry.get("name") == part or str(index) == part):
                yield entry
                return


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except Exception:  # tomllib passes on what Python says of huge numbers and deep lists; then it is text
        return text
