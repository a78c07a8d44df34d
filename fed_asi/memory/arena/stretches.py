"""The stretches of a traced step: the stretch of every operation, and what is alive during each operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fed_asi.memory.arena.lifetimes import last_uses, lifetimes
from fed_asi.memory.arena.trace import Trace


def stretches(trace: Trace, names: Sequence[str]) -> list[int]:
    """Return the stretch of every operation."""
    number = {name: i for i, name in enumerate(names)}
    found: list[int] = []
    homes: dict[str, set[int]] = {}
    at = -1
    for op in trace.ops[: trace.forward]:
        at = max(at, number.get(op.where, at))
        found.append(at)
        homes.setdefault(op.where, set()).add(at)
    for op in trace.ops[trace.forward :]:
        at = _home(op.where, number, homes, at, len(names))
        found.append(at)
    return found


def _home(where: str, number: Mapping[str, int], homes: Mapping[str, set[int]], at: int, end: int) -> int:
    """Return the stretch of a backward operation; if its module runs twice, that of the operation before."""
    if where == "(update)":
        return end
    for name in (where, where.rpartition(".")[0]):  # `where` may name a parameter: then try its module
        if name in number:
            return number[name]
        if len(homes.get(name, ())) == 1:
            return next(iter(homes[name]))
    return at


def alive(trace: Trace) -> Iterator[frozenset[int]]:
    """Yield, for every operation, the storages of the arena that are alive during it."""
    starts: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for storage, (first, last) in _spans(trace).items():
        if last >= first:
            starts.setdefault(first, []).append(storage)
            ends.setdefault(last, []).append(storage)
    found: set[int] = set()
    for index in range(len(trace.ops)):
        found.update(starts.get(index, ()))
        yield frozenset(found)
        found.difference_update(ends.get(index, ()))


def _spans(trace: Trace) -> dict[int, tuple[int, int]]:
    """Return (first, last) operation of every storage of the arena; it ends earlier if its place is taken."""
    made = {storage: index for index, op in enumerate(trace.ops) for storage in op.makes}
    last = last_uses(trace)
    spans = {}
    for place in lifetimes(trace):
        for storage, after in zip(place.storages, (*place.storages[1:], None), strict=True):
            end = last[storage] if after is None else made[after] - 1
            spans[storage] = (made.get(storage, 0), end)
    return spans
