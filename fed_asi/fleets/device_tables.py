"""Tables of devices: your own CSV, and the files of FedScale and FLASH as published.

CSV: a header with keys of `hardware.NUMBERS`, then one row a device.
FedScale's client_device_capacity: a pickled dictionary, client -> {"computation", "communication"}, in milliseconds an
image and kbit/s. The first is for one network and batch only, so it tells how much faster or slower a device is than
the median of its table; the preset says how fast the median is.
Source: github.com/SymbioticLab/FedScale, benchmark/dataset/data/device_info (Apache-2.0).
FLASH's speed_distri.json: device -> means and deviations of its rates, in KiB/s: "down_u", "down_sigma", "up_u",
"up_sigma".
Source: github.com/PKU-Chengxu/FLASH, models/device.py (BSD-2-Clause).
"""

from __future__ import annotations

import csv
import io
import json
import math
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from fed_asi.errors import ConfigError
from fed_asi.fleets.hardware import NUMBERS, problem_of
from fed_asi.units import shown

_SHOWN = 5  # problems listed for one file
_KIBIT = 1024 * 8


@dataclass(frozen=True, slots=True)
class Row:
    """One device of a table. numbers: by key. speed: relative to the preset. deviations: of numbers, by key."""

    numbers: Mapping[str, Any]
    speed: float = 1.0
    deviations: Mapping[str, float] = field(default_factory=dict)


def read_table(path: str) -> tuple[Row, ...]:
    """Return a table's devices, in its order. Raises ConfigError with the first problems of the file."""
    return _read(path, _stamp(path))


def _stamp(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(path)} cannot be read: {getattr(error, 'strerror', error)}") from None


@lru_cache(maxsize=8)
def _read(path: str, _stamp: float) -> tuple[Row, ...]:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{shown(path)} cannot be read: {error.strerror}") from None
    problems, rows = list[str](), list[Row]()
    for where, row in _rows(content, Path(path)):
        wrong = [f"{where}: {one}" for one in _wrong(row)] if isinstance(row, Row) else [f"{where}: {row}"]
        problems += wrong
        rows += [row] if isinstance(row, Row) and not wrong else []
    if not rows and not problems:
        problems = ["no device in it"]
    if problems:
        more = len(problems) - _SHOWN
        said = problems[:_SHOWN] + ([f"and {more} more problems"] if more > 0 else [])
        raise ConfigError([f"{Path(path).name}: {one}" for one in said])
    return tuple(rows)


def _wrong(row: Row) -> list[str]:
    """Return what is wrong with a row; a rate of 0 is reported, not skipped."""
    found = [one for key, value in row.numbers.items() if (one := problem_of(key, value)) is not None]
    return found if math.isfinite(row.speed) and row.speed > 0 else [*found, "its speed must be above 0"]


def _rows(content: bytes, path: Path) -> Iterator[tuple[str, Row | str]]:
    """Yield (where, the row or what is wrong with it), read in the format of the file."""
    if path.suffix == ".csv":
        yield from _csv(content)
    elif content[:1] == b"{":
        yield from _flash(content)
    else:
        yield from _fedscale(content)


def _csv(content: bytes) -> Iterator[tuple[str, Row | str]]:
    try:
        lines = csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True)
        keys = [key.strip() for key in next(lines, [])]
        unknown = [key for key in keys if key not in NUMBERS]
        if unknown or not keys:
            yield (
                "line 1",
                f"unknown column {shown(unknown[0] if unknown else '')}; known: {', '.join(NUMBERS)}",
            )
            return
        for number, line in enumerate(lines, start=2):
            if line:
                yield f"line {number}", _csv_row(keys, line)
    except (UnicodeDecodeError, csv.Error) as error:
        yield "file", f"is no CSV: {error}"


def _csv_row(keys: list[str], line: list[str]) -> Row | str:
    if len(line) != len(keys):
        return f"{len(line)} values under {len(keys)} columns"
    values: dict[str, Any] = {}
    for key, text in zip(keys, line, strict=True):
        if text.strip():
            try:
                values[key] = text.strip() if key in {"ram", "flash"} else float(text)
            except ValueError:
                return f"{key}: must be a number, not {shown(text)}"
    return Row(values)


def _flash(content: bytes) -> Iterator[tuple[str, Row | str]]:
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        yield "file", f"is no JSON: {error}"
        return
    for name, entry in entries.items():
        try:
            down, up = float(entry["down_u"]) * _KIBIT, float(entry["up_u"]) * _KIBIT
            spread = (float(entry["down_sigma"]) * _KIBIT, float(entry["up_sigma"]) * _KIBIT)
        except (TypeError, KeyError, ValueError):
            yield shown(name), "needs the numbers down_u, down_sigma, up_u and up_sigma"
            continue
        keys = ("down_bits_per_second", "up_bits_per_second")
        yield (
            shown(name),
            Row(dict(zip(keys, (down, up), strict=True)), 1.0, dict(zip(keys, spread, strict=True))),
        )


def _fedscale(content: bytes) -> Iterator[tuple[str, Row | str]]:
    entries = unpickled(content)
    if not isinstance(entries, dict):
        yield "file", "is neither a CSV, FLASH's JSON nor FedScale's dictionary"
        return
    milliseconds = [one.get("computation") for one in entries.values() if isinstance(one, dict)]
    usable = [one for one in milliseconds if isinstance(one, (int, float)) and one > 0]
    middle = median(usable) if usable else 1.0
    for name, entry in entries.items():
        try:
            rate, taken = 1000.0 * float(entry["communication"]), float(entry["computation"])
        except (TypeError, KeyError, ValueError):
            yield f"client {shown(name)}", "needs the numbers computation and communication"
            continue
        speed = middle / taken if taken > 0 else 0.0
        yield f"client {shown(name)}", Row({"down_bits_per_second": rate, "up_bits_per_second": rate}, speed)


class _Plain(pickle.Unpickler):
    """Reads numbers, texts, lists and dictionaries, and refuses everything else: a pickle may hold any program."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse every class."""
        raise pickle.UnpicklingError(
            f"it holds a {module}.{name}, but only plain numbers and text are allowed"
        )


def unpickled(content: bytes) -> Any:
    """Return what a pickle of plain values holds; None for anything else."""
    try:
        return _Plain(io.BytesIO(content)).load()
    except Exception:  # bytes that are not a pickle may raise anything
        return None
