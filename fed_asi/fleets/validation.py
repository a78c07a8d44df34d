"""From a fleet file's content to a RunConfig, with stand-ins for wrong values, so that the rest is checked too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from fed_asi.fleets import problems as wording
from fed_asi.fleets.config import RunConfig

_STAND_INS: dict[str, Any] = {
    "name": "unnamed",
    "cohort": 1,
    "count": 1,
    "budget": None,
    "round": 1,
    "partition_id": 0,
}


def validate(raw: dict[str, Any]) -> tuple[RunConfig | None, set[str], list[str]]:
    """Return the settings, the places in them that are stand-ins for wrong values, and the problems.

    Wrong values are reported, then left out or replaced, so that the rest can be checked too.
    """
    problems: list[str] = []
    broken: set[str] = set()
    for _ in range(8):
        try:
            return RunConfig.model_validate(raw), broken, problems
        except ValidationError as error:
            for place in wording.by_place(error.errors()):
                names = [str(part) for part in place["loc"]]
                if not any(".".join(names[: depth + 1]) in broken for depth in range(len(names))):
                    problems.append(wording.line(place, wording.keys_at(RunConfig, place["loc"][:-1])))
                broken.add(".".join(names))
                _mend_(raw, place["loc"], known=place["type"] != "extra_forbidden")
    return None, broken, problems


def _mend_(raw: Any, loc: Sequence[int | str], known: bool) -> None:
    """Replace a wrong value by a stand-in, or drop it if its section has a default."""
    here = raw
    for part in loc[:-1]:
        if isinstance(here, Mapping) and part not in here:
            return
        here = here[part]
    last = loc[-1] if loc else ""
    if isinstance(here, list) and isinstance(last, int):
        here[last] = {}
    elif last == "groups":
        here[last] = [{}]
    elif isinstance(here, dict):
        here.pop(last, None)
        if known and last in _STAND_INS and (len(loc) == 1 or loc[0] in {"groups", "devices"}):
            here[last] = _STAND_INS[str(last)]
