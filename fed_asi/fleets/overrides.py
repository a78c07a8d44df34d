"""`--set key=value`: one value of a fleet file changed for one run."""

from __future__ import annotations

import tomllib
from typing import Any


def override_(raw: dict[str, Any], text: str) -> str | None:
    """Put one key=value into the file's content; return what is wrong with it, if anything."""
    key, equals, value = text.partition("=")
    *parents, last = key.strip().split(".")
    if not equals or not last:
        return f"--set {text!r}: write key=value, such as train.lr=0.1"
    here: Any = raw
    for depth, part in enumerate(parents):
        here = _step_into(here, part)
        if here is None:
            return f"--set {text!r}: there is no {'.'.join(parents[: depth + 1])}"
    if isinstance(here, dict):
        here[last] = _value(value.strip())
        return None
    kind = "a list; name one of its entries" if isinstance(here, list) else "not a table"
    return f"--set {text!r}: {'.'.join(parents)} is {kind}"


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
