"""The CSV of a big fleet's budgets, partition_id,budget a line, beside its fleet file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from fed_asi.errors import ConfigError
from fed_asi.units import parse_bytes


def add_csv_(raw: dict[str, Any], folder: Path) -> list[str]:
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
