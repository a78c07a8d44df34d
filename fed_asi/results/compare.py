"""A comparison of two runs: settings, weights, accuracy, bytes, and the first record that differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import zip_longest
from pathlib import Path
from typing import Any

from fed_asi.results.schema import TIMES, DeviceRecord, DeviceRoundRecord, GroupRoundRecord, RoundRecord
from fed_asi.results.settings import without_code
from fed_asi.results.store import RunStore
from fed_asi.results.summary import Summary, summarise
from fed_asi.units import format_bytes


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two runs differ; `first_difference` is None if all records are equal but for times."""

    lines: tuple[str, ...]
    equal_weights: bool
    first_difference: str | None

    @property
    def equal(self) -> bool:
        """Whether the runs ended with the same weights and the same records."""
        return self.equal_weights and self.first_difference is None


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Return how two runs' results differ; times are not compared. Raises RunError where one is not a run."""
    with RunStore.read(first) as a, RunStore.read(second) as b:
        weights = [_weights(store) for store in (a, b)]
        equal_weights = weights[0] == weights[1] and weights[0] is not None
        difference = next(_differences(a, b), None)
        lines = [_weights_line(*weights), *_results(summarise(a), summarise(b)), *_settings(a, b)]
        lines.append(f"first difference: {difference or 'none, all records are equal except for times'}")
    return Comparison(tuple(lines), equal_weights, difference)


def _weights(store: RunStore) -> str | None:
    rounds = [one.weights_sha256 for one in store.rounds() if one.weights_sha256 is not None]
    return store.run().weights_sha256 or (rounds[-1] if rounds else None)


def _weights_line(first: str | None, second: str | None) -> str:
    if first is None or second is None:
        return "weights: not recorded in both runs, so they cannot be compared"
    if first == second:
        return f"weights: equal to the bit (sha256 {first[:12]})"
    return f"weights: different (sha256 {first[:12]} and {second[:12]})"


def _results(a: Summary, b: Summary) -> Iterator[str]:
    yield f"rounds: {_rounds(a)} and {_rounds(b)}"
    accuracies = [one.final.accuracy if one.final is not None else None for one in (a, b)]
    if accuracies[0] is not None and accuracies[1] is not None:
        change = 100 * (accuracies[1] - accuracies[0])
        yield f"accuracy: {100 * accuracies[0]:.2f} % and {100 * accuracies[1]:.2f} % ({change:+.2f})"
    sizes = [max((one.measured_bytes or 0 for one in s.devices), default=0) for s in (a, b)]
    yield f"largest measured step: {format_bytes(sizes[0])} and {format_bytes(sizes[1])}"
    sent = [sum(one.bytes_up + one.bytes_down for one in s.rounds) for s in (a, b)]
    yield f"bytes sent: {format_bytes(sent[0])} and {format_bytes(sent[1])}"
    seconds = [sum(one.host_seconds for one in s.rounds) for s in (a, b)]
    yield f"seconds of rounds: {seconds[0]:.1f} and {seconds[1]:.1f}"


def _rounds(summary: Summary) -> int:
    return sum(record.round > 0 for record in summary.rounds)


def _settings(a: RunStore, b: RunStore) -> Iterator[str]:
    first, second = (dict(flat(without_code(store.run().config))) for store in (a, b))
    for key in sorted(first.keys() | second.keys()):
        if first.get(key) != second.get(key):
            yield f"setting {key}: {first.get(key)!r} and {second.get(key)!r}"
    versions = [store.run().versions for store in (a, b)]
    for key in sorted(versions[0].keys() | versions[1].keys()):
        if versions[0].get(key) != versions[1].get(key):
            yield f"version of {key}: {versions[0].get(key)} and {versions[1].get(key)}"


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested settings, each with its key, such as groups[0].budget."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, inner in enumerate(value):
            yield from flat(inner, f"{path}[{index}]")
    else:
        yield path, value


def _differences(a: RunStore, b: RunStore) -> Iterator[str]:
    """Yield every cell that differs: devices first, then rounds, device-rounds and group-rounds."""
    for left, right in (
        *zip_longest(a.devices(), b.devices()),
        *zip_longest(a.rounds(), b.rounds()),
    ):
        yield from _cells(left, right)
    for left, right in zip_longest(a.device_rounds(), b.device_rounds()):
        yield from _cells(left, right)
    for left, right in zip_longest(a.group_rounds(), b.group_rounds()):
        yield from _cells(left, right)


Row = DeviceRecord | RoundRecord | DeviceRoundRecord | GroupRoundRecord


def _cells(left: Row | None, right: Row | None) -> Iterator[str]:
    if left is None or right is None:
        present = left or right
        if present is not None:
            yield f"{_place(present)} is only in the {'second' if left is None else 'first'} run"
        return
    for one in fields(left):
        values = getattr(left, one.name), getattr(right, one.name, None)
        if one.name not in TIMES and values[0] != values[1]:
            yield f"{_place(left)}, {one.name}: {values[0]!r} and {values[1]!r}"


def _place(row: Row) -> str:
    if isinstance(row, DeviceRecord):
        return f"device {row.partition_id}"
    if isinstance(row, RoundRecord):
        return f"round {row.round}"
    if isinstance(row, GroupRoundRecord):
        return f"round {row.round}, group {row.group_name}"
    return f"round {row.round}, device {row.partition_id}"
