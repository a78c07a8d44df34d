"""Budgets of single devices: the lines of [budgets], and for a big fleet a CSV with lines of partition_id,budget."""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from fed_asi.errors import ConfigError
from fed_asi.units import parse_bytes, shown

_LONGEST = 1000  # characters of a line
_MOST_DIGITS = 18  # of a partition_id


def add_csv_(raw: dict[str, Any], folder: Path, replaced: Collection[str] = ()) -> list[str]:
    """Read budgets_csv into raw["budgets"]; return its problems, each with its line number.

    Each device may have one line only, in the CSV or in [budgets]. replaced: keys of [budgets] that the command line
    sets; they take precedence over the CSV.
    """
    budgets = raw.setdefault("budgets", {})
    if not isinstance(budgets, dict):
        return []
    problems = list(_twice(budgets))
    name = raw.get("budgets_csv")
    if not isinstance(name, str):
        return problems
    own = {int(key): key for key in budgets if _is_id(key)}
    for number, row in _rows(folder, name, problems):
        try:
            partition_id, budget = _csv_row(row)
            key = own.get(partition_id)
            if key is None:
                own[partition_id] = f"{name} line {number}"
                budgets[str(partition_id)] = budget
            elif key not in replaced:
                where = f"[budgets] {key}" if key in budgets else key
                raise ConfigError(
                    f"device {partition_id} has its budget in {where} already; keep one of them"
                )
        except ConfigError as error:
            problems.append(f"{name} line {number}: {error}")
    return problems


def _twice(budgets: dict[Any, Any]) -> Iterator[str]:
    """Yield the devices that [budgets] names twice, such as 3 and 03."""
    seen: dict[int, str] = {}
    for key in budgets:
        if _is_id(key) and seen.setdefault(int(key), key) != key:
            yield f"budgets: device {int(key)} is given twice, as {seen[int(key)]} and as {key}; keep one of them"


def _is_id(key: object) -> bool:
    return isinstance(key, str) and re.fullmatch(rf"[0-9]{{1,{_MOST_DIGITS}}}", key.strip()) is not None


def _rows(folder: Path, name: str, problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, values) for each line with content, the header left out; note lines that are malformed."""
    path = folder / name
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:  # no such file, not text, or not a valid name
        reason = getattr(error, "strerror", None) or str(error)
        problems.append(f"budgets_csv: {shown(str(path))} cannot be read: {reason}")
        return
    first = True
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        row = _values(line)
        if row is None:
            problems.append(f"{name} line {number}: {shown(line)} is not a line of partition_id,budget")
        elif not (first and _is_header(row)):
            yield number, row
        first = False


def _values(line: str) -> list[str] | None:
    if len(line) > _LONGEST:
        return None
    try:
        return [value.strip() for value in next(csv.reader([line.strip()], strict=True))]
    except csv.Error:
        return None


def _is_header(row: Iterable[str]) -> bool:
    """Return whether a first line names columns: it says partition_id, or has two words that are not values."""
    values = list(row)
    if values and values[0].lower() == "partition_id":
        return True
    words = [re.fullmatch(r"[A-Za-z_][A-Za-z_ ]+", value) is not None for value in values]
    return words == [True, True] and not difflib.get_close_matches(values[1].lower(), ["unlimited"])


def _csv_row(row: list[str]) -> tuple[int, int | None]:
    if len(row) != 2:
        raise ConfigError(
            f"{len(row)} {'value' if len(row) == 1 else 'values'} instead of partition_id,budget"
        )
    first = row[0]
    if not _is_id(first):
        raise ConfigError(f"partition_id {shown(first)} is not a whole number from 0 up")
    return int(first), parse_bytes(row[1])
