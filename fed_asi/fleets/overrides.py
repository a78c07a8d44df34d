"""One value of a fleet file changed for one run: by `--set key=value`, or by a study."""

from __future__ import annotations

import tomllib
from typing import Any


def override_(raw: dict[str, Any], text: str) -> str | None:
    """Put one key=value into the file's content; return what is wrong with it, if anything."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip().split(".")[-1]:
        return f"--set {text!r}: write key=value, such as train.lr=0.1"
    wrong = put_(raw, key.strip(), _value(value.strip()))
    return None if wrong is None else f"--set {text!r}: {wrong}"


def put_(raw: dict[str, Any], key: str, value: Any) -> str | None:
    """Put a value at a key such as "train.lr" into the file's content; return what is wrong with the key, if anything.

    Entries of a list are named, or counted from 0: "groups.tight.budget".
    """
    *parents, last = key.split(".")
    here: Any = raw
    for depth, part in enumerate(parents):
        here = _step_into(here, part)
        if here is None:
            return f"there is no {'.'.join(parents[: depth + 1])}"
    if isinstance(here, dict):
        here[last] = value
        return None
    kind = "a list; name one of its entries" if isinstance(here, list) else "not a table"
    return f"{'.'.join(parents)} is {kind}"


def _step_into(here: Any, part: str) -> Any:
    if isinstance(here, dict):
        return here.setdefault(part, {})
    if not isinstance(here, list):
        return None
    for index, entry in enumerate(here):
        if isinstance(entry, dict) and (entry.get("name") == part or str(index) == part):
            return entry
    return None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except Exception:  # tomllib passes on what Python says of huge numbers and deep lists; then it is text
        return text
