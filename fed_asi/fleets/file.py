"""A fleet file on disk -> RunConfig, or every problem it has, at once."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fed_asi.errors import ConfigError, nearest
from fed_asi.fleets.checks import check
from fed_asi.fleets.config import RunConfig
from fed_asi.units import parse_bytes

_WORDS = {
    "integer": "a whole number",
    "string": "text",
    "dictionary": "a table",
    "number": "a number",
    "boolean": "true or false",
    "tuple": "a list",
}


_STAND_INS: dict[str, Any] = {
    "name": "unnamed",
    "cohort": 1,
    "count": 1,
    "budget": None,
    "round": 1,
    "partition_id": 0,
}


def load_config(path: str | Path, overrides: Sequence[str] = (), *, cpus: int | None = None) -> RunConfig:
    """Return the settings that a fleet file and `--set key=value` overrides ask for.

    path: a TOML file. overrides: "train.lr=0.1", 'groups.tight.budget="64 KiB"'.
    cpus: how many the machine has; None counts them.
    Raises ConfigError with all problems of the file, its CSV and the overrides together.
    """
    raw = _read_toml(Path(path))
    problems = [problem for text in overrides if (problem := _override_(raw, text))]
    problems += _hidden_name(raw, overrides)
    problems += _add_csv_(raw, Path(path).parent)
    config, broken, found = _validate(raw)
    problems += found
    if config is not None:
        problems += check(config, broken, cpus)
    if problems or config is None:
        raise ConfigError(problems)
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = nearest(path.name, [other.name for other in path.parent.glob("*.toml")])
        raise ConfigError(f"no file {path}" + (f"; {near}" if "mean" in near else "")) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _override_(raw: dict[str, Any], text: str) -> str | None:
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


def _hidden_name(raw: Mapping[str, Any], overrides: Sequence[str]) -> Iterator[str]:
    """Yield the problem of a method name on the command line that the file's own `methods` would hide."""
    keys = [text.partition("=")[0].strip() for text in overrides]
    method = raw.get("method")
    if "method.name" in keys and "method.methods" not in keys and isinstance(method, dict):
        forms = method.get("methods")
        if forms is not None:
            yield (
                f"--set method.name: the file's method.methods = {forms} decides the forms, whatever the name; "
                "set method.methods too"
            )


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
    except tomllib.TOMLDecodeError:
        return text


def _add_csv_(raw: dict[str, Any], folder: Path) -> list[str]:
    """Read budgets_csv into raw["budgets"]; return its problems, each with its line number."""
    name = raw.get("budgets_csv")
    if not isinstance(name, str):
        return []
    path = folder / name
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return [f"budgets_csv: {path} cannot be read: {getattr(error, 'strerror', None) or error}"]
    budgets = raw.setdefault("budgets", {})
    if not isinstance(budgets, dict):
        return []
    problems: list[str] = []
    seen: dict[int, int] = {}
    for number, row in enumerate(csv.reader(lines), start=1):
        if not row or row[0].lstrip().startswith("#") or (number == 1 and not row[0].strip().isdigit()):
            continue
        try:
            partition_id, budget = _csv_row(row)
            if partition_id in seen:
                raise ConfigError(f"device {partition_id} is on line {seen[partition_id]} already")
            seen[partition_id] = number
            budgets.setdefault(str(partition_id), budget)
        except ConfigError as error:
            problems.append(f"{name} line {number}: {error}")
    return problems


def _csv_row(row: list[str]) -> tuple[int, int | None]:
    if len(row) != 2:
        raise ConfigError(f"{len(row)} values instead of partition_id,budget")
    first = row[0].strip()
    if not first.isdigit():
        raise ConfigError(f"partition_id {first!r} is not a whole number from 0 up")
    return int(first), parse_bytes(row[1].strip())


def _validate(raw: dict[str, Any]) -> tuple[RunConfig | None, set[str], list[str]]:
    """Return the settings, the places in them that are stand-ins for what was wrong, and the problems.

    What is wrong is reported, then left out or replaced, so that what remains can be checked too.
    """
    problems: list[str] = []
    broken: set[str] = set()
    for _ in range(8):
        try:
            return RunConfig.model_validate(raw), broken, problems
        except ValidationError as error:
            for place in _by_place(error.errors()):
                names = [str(part) for part in place["loc"]]
                if not any(".".join(names[: depth + 1]) in broken for depth in range(len(names))):
                    problems.append(_problem(place))
                broken.add(".".join(names))
                _mend_(raw, place["loc"], known=place["type"] != "extra_forbidden")
    return None, broken, problems


def _by_place(errors: Sequence[ErrorDetails]) -> Iterator[ErrorDetails]:
    """Each wrong place once: a union reports every branch, with the branch's name in the path."""
    places: dict[tuple[int | str, ...], ErrorDetails] = {}
    for error in errors:
        loc = tuple(part for part in error["loc"] if not _is_branch(part))
        places.setdefault(loc, {**error, "loc": loc})
    return iter(places.values())


def _is_branch(part: int | str) -> bool:
    return isinstance(part, str) and ("[" in part or part in {"int", "float", "str", "none"})


def _problem(error: ErrorDetails) -> str:
    """Return one wrong place as one line: where, what, and what would be right."""
    *parents, last = error["loc"] or ("file",)
    where = _where(error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {nearest(str(last), _section(parents).model_fields)}"
    if error["type"] == "missing":
        return f"{where}: missing"
    if error["type"] == "value_error":
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    known = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
    if error["type"] == "literal_error" and known:
        return f"{where}: unknown {error['input']!r}; {nearest(str(error['input']), known)}"
    if error["type"] == "model_type":
        return f"{where}: must be a table, not {error['input']!r}"
    message = error["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{where}: must be {_WORDS.get(message, message)}, not {error['input']!r}"


def _where(path: Sequence[int | str]) -> str:
    """Return a place for people, such as groups[0].budget."""
    words = [
        f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else repr(part)}"
        for part in path
    ]
    return "".join(words).removeprefix(".") or "file"


def _section(path: Sequence[int | str]) -> type[BaseModel]:
    """Return the model class at a path, such as ("groups", 0)."""
    model: type[BaseModel] = RunConfig
    for part in path:
        if isinstance(part, str):
            model = next(_models_in(model.model_fields[part].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models_in(inner)


def _mend_(raw: Any, loc: Sequence[int | str], known: bool) -> None:
    """Replace what is wrong by a stand-in, or drop it where its section has a default."""
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
