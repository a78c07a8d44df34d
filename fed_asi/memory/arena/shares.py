"""What each layer adds to the bytes of a step, so that the arena of another mix of layers is known before it is traced.

A step is cut into stretches: from where a layer runs to where the next one does, in the forward, and the same way back.
While a layer's stretch runs, these are alive:
    what the layers before it saved, for they come later in the backward;
    what the layers behind it hold to the step's end, in the backward: gradients that wait for the update;
    what all but the layers still to come renew in the forward: warm factors;
    the stretch's own tensors: its input and output, what it saves, its gradients and transients.
The first three are sums over other layers; the last depends on the layer's own form alone. So the most bytes alive are
    max over layers j of  sum of (saved_i + renewed_i), i < j,  +  the larger of
        forward_j  and  backward_j + sum of (held_i + renewed_i), i > j.
One thing is no such sum: the input of a residual block is alive through all of its forward, whoever saves it. So it is
the block's first layer that adds it to the forward of those that it passes by, where that layer does not save it.
Where blocks lie within blocks only the innermost counts, and a whole input that two layers save is in the sum of
neither but the first: then the formula is below what is alive, never above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fed_asi.memory.arena.lifetimes import last_uses, lifetimes
from fed_asi.memory.arena.offsets import ALIGNMENT, aligned
from fed_asi.memory.arena.trace import Trace


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes of one layer's stretch of a step.

    saved: from its forward to its backward. held, renewed: from its backward, its forward, to the step's end.
    forward, backward: the most that its own stretch has alive there, its saved bytes among it. inside: the same of
    the forward, while a block's input passes by, which is left out. passes: of the layer's own input, where that is
    not saved and passes by later layers. mean, factors, constant: of the roles of `Trace`.
    """

    saved: int = 0
    held: int = 0
    renewed: int = 0
    forward: int = 0
    inside: int = 0
    backward: int = 0
    passes: int = 0
    mean: int = 0
    factors: int = 0
    constant: int = 0


@dataclass(frozen=True, slots=True)
class Shares:
    """A step by layers. before: the most alive in the stretch before the first of them. update: at the very end.

    around: for every layer, the first layer of the block whose input passes it by; -1: none does.
    """

    before: int
    layers: tuple[Share, ...]
    update: int
    around: tuple[int, ...]


def most_alive(found: Shares) -> int:
    """Return the most bytes alive at one time in a step of such layers."""
    after = need = passed = 0
    for i in reversed(range(len(found.layers))):
        one, opens = found.layers[i], i in found.around
        stays = one.saved + one.renewed
        need = max(one.forward, one.inside, one.backward + after, stays + need)
        if opens:
            need = max(need, stays + passed + one.passes)
        behind = passed + stays if passed and not opens else 0
        passed = max(behind, one.inside) if found.around[i] >= 0 else 0
        after += one.held + one.renewed
    return max(need, found.before, after + found.update)


def shares(trace: Trace, names: Sequence[str], alignment: int = ALIGNMENT) -> Shares:
    """Return what each layer adds to a traced step.

    names: of layers, in forward order.
    """
    return _Split(trace, names, alignment).found()


@dataclass(slots=True)
class _Split:
    """A trace with the stretch of every operation; -1 is before the first layer, len(names) the update."""

    trace: Trace
    names: Sequence[str]
    alignment: int
    stretches: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    owner: dict[int, int] = field(default_factory=dict)  # the layer that a saved storage is of
    holder: dict[int, tuple[int, bool]] = field(
        default_factory=dict
    )  # who made what is held; in the forward?
    passing: dict[int, tuple[int, int]] = field(
        default_factory=dict
    )  # first reader, last operation that reads it
    heirs: dict[int, int] = field(default_factory=dict)  # of a storage that takes another's place, that other

    def __post_init__(self) -> None:
        trace = self.trace
        self.stretches = _stretches(trace, self.names)
        self.sizes = [aligned(size, self.alignment) for size in trace.sizes]
        made = {storage: index for index, op in enumerate(trace.ops) for storage in op.makes}
        last = last_uses(trace)
        for storage in range(len(trace.sizes)):
            if not trace.comes_and_goes(storage):
                continue
            at = made.get(storage, 0)
            if storage in trace.held or self.stretches[last[storage]] == len(self.names):
                self.holder[storage] = (self.stretches[at], at < trace.forward)
            elif at < trace.forward <= last[storage] or (
                storage not in made and last[storage] >= trace.forward
            ):
                self.owner[storage] = self.stretches[last[storage]]
        self._note_passing(made)

    def _note_passing(self, made: Mapping[int, int]) -> None:
        """Note the storages that the forward reads in two stretches: they pass by what lies between."""
        readers: dict[int, list[int]] = {}
        for index, op in enumerate(self.trace.ops[: self.trace.forward]):
            for view in op.inputs():
                begun = self.stretches[made[view.storage]] if view.storage in made else -1
                if self.stretches[index] > max(begun, -1) and self.trace.comes_and_goes(view.storage):
                    readers.setdefault(view.storage, []).append(index)
        for storage, found in readers.items():
            layers = list(dict.fromkeys(self.stretches[index] for index in found))
            if len(layers) > 1:
                until = max(index for index in found if self.stretches[index] == layers[1])
                self.passing[storage] = (layers[0], until)
        for place in lifetimes(self.trace):
            self.heirs.update(zip(place.storages[1:], place.storages, strict=False))

    def found(self) -> Shares:
        """Return the shares."""
        count = len(self.names)
        saved, held, renewed, passes = (
            [0] * (count + 2) for _ in range(4)
        )  # -1, the last: before the first layer
        for storage, layer in self.owner.items():
            if not self._passes_by(storage, layer):
                saved[layer] += self.sizes[storage]
        for storage, (layer, forward) in self.holder.items():
            (renewed if forward else held)[layer] += self.sizes[storage]
        for storage, (layer, _) in self.passing.items():
            if self.owner.get(storage) != layer:
                passes[layer] += self.sizes[storage]
        forwards, insides, backwards = self._needs()
        layers = (
            Share(
                saved[i],
                held[i],
                renewed[i],
                forwards.get(i, 0),
                insides.get(i, 0),
                backwards.get(i, 0),
                passes[i],
                *self._roles(name),
            )
            for i, name in enumerate(self.names)
        )
        around = tuple(self._around(i) for i in range(count))
        before = max(forwards.get(-1, 0), backwards.get(-1, 0))
        return Shares(
            before, tuple(layers), max(0, backwards.get(count, 0) - sum(held) - sum(renewed)), around
        )

    def _around(self, layer: int) -> int:
        """Return the last layer before this one whose input passes it by; -1 for none."""
        every = (a for a, until in self.passing.values() if a < layer <= self.stretches[until])
        return max(every, default=-1)

    def _needs(self) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        """Return, by stretch, the most alive in its forward, inside a block, and in its backward: its own alone."""
        forwards: dict[int, int] = {}
        insides: dict[int, int] = {}
        backwards: dict[int, int] = {}
        for index, (layer, alive) in enumerate(zip(self.stretches, _alive(self.trace), strict=True)):
            inside = any(a < layer and index <= until for a, until in self.passing.values())
            needs = backwards if index >= self.trace.forward else insides if inside else forwards
            own = sum(self.sizes[s] for s in alive if self._counts(s, layer, index))
            needs[layer] = max(needs.get(layer, 0), own)
        return forwards, insides, backwards

    def _counts(self, storage: int, layer: int, index: int) -> bool:
        """Return whether a storage that is alive is a stretch's own, not of the sums over other layers."""
        if layer == len(self.names):
            return True
        if self.owner.get(storage, layer) < layer or self.holder.get(storage, (layer,))[0] != layer:
            return False
        if index >= self.trace.forward:
            return True
        before = self.heirs.get(storage)
        if before is not None and storage in self.trace.ops[index].makes and self._passes_by(before, layer):
            return False  # it takes the place of what passes by, which is counted there
        return not self._passes_by(storage, layer) or self.owner.get(storage) == layer

    def _passes_by(self, storage: int, layer: int) -> bool:
        return self.passing.get(storage, (layer, 0))[0] < layer

    def _roles(self, name: str) -> tuple[int, int, int]:
        trace = self.trace
        labels = {
            "mean": f"mean of {name}",
            "factors": f"factors of {name}",
            "constant": f"constant of {name}",
        }
        mean, factors, constant = (
            sum(
                trace.sizes[s]
                for s, found in trace.roles.items()
                if found == role and trace.labels[s] == label
            )
            for role, label in labels.items()
        )
        return mean, factors, constant


def _alive(trace: Trace) -> Iterator[frozenset[int]]:
    """Yield, for every operation, the storages of the arena that are alive in it."""
    starts: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for storage, (first, last) in _spans(trace).items():
        if last >= first:
            starts.setdefault(first, []).append(storage)
            ends.setdefault(last, []).append(storage)
    alive: set[int] = set()
    for index in range(len(trace.ops)):
        alive.update(starts.get(index, ()))
        yield frozenset(alive)
        alive.difference_update(ends.get(index, ()))


def _spans(trace: Trace) -> dict[int, tuple[int, int]]:
    """Return (first, last) operation of every storage of the arena; one whose place is taken ends before."""
    made = {storage: index for index, op in enumerate(trace.ops) for storage in op.makes}
    last = last_uses(trace)
    spans = {}
    for place in lifetimes(trace):
        for storage, after in zip(place.storages, (*place.storages[1:], None), strict=True):
            end = last[storage] if after is None else made[after] - 1
            spans[storage] = (made.get(storage, 0), end)
    return spans


def _stretches(trace: Trace, names: Sequence[str]) -> list[int]:
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
    """Return the stretch of an operation of the backward; of a module that runs twice, that of the one before."""
    if where == "(update)":
        return end
    for name in (where, where.rpartition(".")[0]):  # a parameter's name, whose module it is
        if name in number:
            return number[name]
        if len(homes.get(name, ())) == 1:
            return next(iter(homes[name]))
    return at
