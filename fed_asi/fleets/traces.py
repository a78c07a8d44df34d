"""Traces of presence: your own intervals, and the files of FedScale and FLASH as published.

CSV: device,start,end in seconds; it repeats after the last end in the file.
FedScale's client_behave_trace: a pickled dictionary, client -> {"active": [...], "inactive": [...], "finish_time"}. A
client is present from each active time to the inactive time at the same index, and repeats from finish_time on.
Source: github.com/SymbioticLab/FedScale, benchmark/dataset/data/device_info (Apache-2.0).
FLASH's state_traces.json: device -> {"messages": lines of a time, a tab and a state}. A device is present while it is
locked, on Wi-Fi and charged, as in FLASH's own reader, and repeats from its first message on.
Source: github.com/PKU-Chengxu/FLASH, models/timer.py (BSD-2-Clause).
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fed_asi.errors import ConfigError
from fed_asi.fleets.device_tables import unpickled
from fed_asi.units import shown

_SHOWN = 5  # problems listed for one file
_MOST_SECONDS = 1e9
_REFERENCE = datetime(2020, 1, 2)  # time 0 of FLASH's clock
_TIME = "%Y-%m-%d %H:%M:%S"
_LINK_STATES = {"wifi": True, **dict.fromkeys(("unknown", "2g", "3g", "4g", "5g"), False)}
Array = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class One:
    """One device's intervals, sorted and disjoint, in a cycle that begins at `origin` and lasts `period` seconds."""

    intervals: tuple[Interval, ...]
    period: float
    origin: float = 0.0


@dataclass(frozen=True, slots=True)
class Traces:
    """Many devices' intervals in flat arrays, as large as the file for any length of run. offsets: (rows + 1,).

    start_keys, end_keys: times shifted by `span` seconds for each row, so that one search covers all rows.
    """

    starts: Array
    ends: Array
    offsets: NDArray[np.int64]
    periods: Array
    origins: Array
    span: float
    start_keys: Array
    end_keys: Array

    def __len__(self) -> int:
        return len(self.periods)

    @classmethod
    def of(cls, rows: Sequence[One]) -> Traces:
        """Return the arrays of these devices."""
        counts = [len(row.intervals) for row in rows]
        times = np.array([interval for row in rows for interval in row.intervals], dtype=np.float64)
        starts, ends = times.reshape(-1, 2).T.copy()
        periods = np.array([row.period for row in rows], dtype=np.float64)
        origins = np.array([row.origin for row in rows], dtype=np.float64)
        span = float(periods.max(initial=0.0)) + 1.0
        apart = np.repeat(np.arange(len(rows)), counts) * span
        offsets = np.cumsum([0, *counts], dtype=np.int64)
        return cls(starts, ends, offsets, periods, origins, span, starts + apart, ends + apart)

    def present(self, rows: NDArray[np.int64], at: float) -> NDArray[np.bool_]:
        """Return which of these rows are present at a time."""
        if len(self.starts) == 0:
            return np.zeros(len(rows), dtype=bool)
        local = self._since(rows, at)
        last = np.searchsorted(self.start_keys, local + rows * self.span, side="right") - 1
        inside = last >= self.offsets[rows]
        there: NDArray[np.bool_] = inside & (local < self.ends[np.maximum(last, 0)])
        return there

    def leaves(self, row: int, at: float) -> float:
        """Return when a row that is present leaves: the end of its interval; infinity if it covers the cycle."""
        begun, local = self._local(row, at)
        found, period = self._intervals(row), float(self.periods[row])
        for start, end in found:
            if start <= local < end:
                goes_on = (
                    end == period and found[0][0] == 0.0
                )  # it continues in the first interval of the next cycle
                whole = goes_on and len(found) == 1
                return math.inf if whole else begun + end + (found[0][1] if goes_on else 0.0)
        return at

    def comes(self, rows: NDArray[np.int64], at: Array) -> Array:
        """Return when each row is next present; infinity: never. at: for each, the earliest time that counts."""
        found = np.full(len(rows), math.inf)
        some = np.flatnonzero(np.diff(self.offsets)[rows] > 0)
        rows, at = rows[some], at[some]
        local, begins = self._since(rows, at), self.offsets[rows]
        place = np.searchsorted(self.end_keys, local + rows * self.span, side="right")
        over = place >= self.offsets[rows + 1]
        found[some] = np.where(
            over,
            at - local + self.periods[rows] + self.starts[begins],
            np.maximum(at, at - local + self.starts[np.where(over, begins, place)]),
        )
        return found

    def _since(self, rows: NDArray[np.int64], at: float | Array) -> Array:
        """Return the time since the current cycle of each row began."""
        since: Array = np.mod(at - self.origins[rows], self.periods[rows])
        return since

    def _local(self, row: int, at: float) -> tuple[float, float]:
        """Return when the current cycle of a row began, and the time since then."""
        local = float(np.mod(at - self.origins[row], self.periods[row]))
        return at - local, local

    def _intervals(self, row: int) -> list[Interval]:
        here = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        return list(zip(self.starts[here].tolist(), self.ends[here].tolist(), strict=True))


def read_traces(path: str) -> Traces:
    """Return the traces in a file. Raises ConfigError with its first problems."""
    try:
        stamp = Path(path).stat().st_mtime
        return _read(path, stamp)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(path)} cannot be read: {getattr(error, 'strerror', error)}") from None


@lru_cache(maxsize=4)
def _read(path: str, _stamp: float) -> Traces:
    content, name = Path(path).read_bytes(), Path(path).name
    problems, rows = list[str](), list[One]()
    for where, row in _rows(content, path.endswith(".csv")):
        wrong = [row] if isinstance(row, str) else list(_wrong(row))
        problems += [f"{name}: {where}: {one}" for one in wrong]
        rows += [row] if isinstance(row, One) and not wrong else []
    if not problems and not any(row.intervals for row in rows):
        problems = [f"{name}: no device is ever present"]
    if problems:
        more = len(problems) - _SHOWN
        raise ConfigError(problems[:_SHOWN] + ([f"{name}: and {more} more problems"] if more > 0 else []))
    return Traces.of(rows)


def _wrong(row: One) -> Iterator[str]:
    if not 0 < row.period <= _MOST_SECONDS:
        yield f"a cycle of {row.period:g} s; it must be above 0 and at most {_MOST_SECONDS:g}"
        return
    before = 0.0
    for start, end in row.intervals:
        if not (math.isfinite(start) and math.isfinite(end)) or not start < end:
            yield f"{start:g} to {end:g} s is not an interval"
            return
        if start < before:
            yield f"{start:g} to {end:g} s begins before {before:g}: intervals must be sorted and must not overlap"
            return
        before = end
    if before > row.period:
        yield f"its last interval ends at {before:g} s, after its cycle of {row.period:g} s"


def _rows(content: bytes, is_csv: bool) -> Iterator[tuple[str, One | str]]:
    if is_csv:
        return _csv(content)
    return _flash(content) if content[:1] == b"{" else _fedscale(content)


def _csv(content: bytes) -> Iterator[tuple[str, One | str]]:
    found: dict[str, list[Interval]] = {}
    try:
        for number, line in enumerate(
            csv.reader(io.StringIO(content.decode("utf-8-sig")), strict=True), start=1
        ):
            if not line or line[0].startswith("#") or (number == 1 and line[0].strip() == "device"):
                continue
            try:
                device, start, end = line[0].strip(), float(line[1]), float(line[2])
            except (ValueError, IndexError):
                yield f"line {number}", f"{shown(','.join(line))} is not device,start,end"
                continue
            found.setdefault(device, []).append((start, end))
    except (UnicodeDecodeError, csv.Error) as error:
        yield "file", f"is no CSV: {error}"
        return
    period = max((end for each in found.values() for _, end in each), default=1.0)
    for device, intervals in found.items():
        yield f"device {shown(device)}", One(_joined(intervals), period)


def _joined(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    """Return intervals, joined where they touch; unsorted or overlapping ones are left for the checks."""
    joined: list[Interval] = []
    for start, end in intervals:
        if joined and joined[-1][1] == start and end > start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return tuple(joined)


def _fedscale(content: bytes) -> Iterator[tuple[str, One | str]]:
    entries = unpickled(content)
    if not isinstance(entries, dict):
        yield "file", "is neither a CSV, FLASH's JSON nor FedScale's dictionary"
        return
    for name, entry in entries.items():
        where = f"client {shown(name)}"
        try:
            active, inactive = ([float(one) for one in entry[key]] for key in ("active", "inactive"))
            period = float(entry["finish_time"])
        except (TypeError, KeyError, ValueError):
            yield where, "needs the lists active and inactive, and finish_time"
            continue
        if len(active) != len(inactive):
            yield where, f"{len(active)} times active and {len(inactive)} inactive"
            continue
        yield where, One(_joined(list(zip(active, inactive, strict=True))), period)


def _flash(content: bytes) -> Iterator[tuple[str, One | str]]:
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        yield "file", f"is no JSON: {error}"
        return
    for name, entry in entries.items():
        try:
            yield shown(name), _flash_row(str(entry["messages"]))
        except (TypeError, KeyError, ValueError) as error:
            yield shown(name), f"needs messages, lines of a time, a tab and a state: {error}"


def _flash_row(messages: str) -> One:
    """Return the intervals in a device's messages, merged as FLASH's own reader merges them."""
    times, ready = list[float](), list[Interval]()
    state = {"locked": False, "wifi": False, "charged": False}
    since: float | None = None
    for line in messages.split("\n"):
        if not line.strip():
            continue
        told, word = line.strip().split("\t")
        at = (datetime.strptime(told.strip(), _TIME) - _REFERENCE).total_seconds()
        times.append(at)
        state |= _change(word.strip().lower())
        there = all(state.values())
        if there and since is None:
            since = at
        elif not there and since is not None:
            ready.append((since, at))
            since = None
    if not times:
        return One((), 1.0)
    origin, period = times[0], times[-1] - times[0]
    return One(_merged([(start - origin, end - origin) for start, end in ready]), max(period, 1.0), origin)


def _change(word: str) -> Mapping[str, bool]:
    if word in _LINK_STATES:
        return {"wifi": _LINK_STATES[word]}
    known: dict[str, Mapping[str, bool]] = {
        "battery_charged_on": {"charged": True},
        "battery_charged_off": {"charged": False},
        "screen_lock": {"locked": True},
        "screen_unlock": {"locked": False},
    }
    return known.get(word, {})  # screen and battery messages do not matter


def _merged(intervals: Sequence[Interval]) -> tuple[Interval, ...]:
    merged: list[Interval] = []
    for start, end in sorted(one for one in intervals if one[1] > one[0] >= 0):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
