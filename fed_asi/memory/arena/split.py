"""A traced step split by layers: assigns every storage to a layer, and gives the share of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fed_asi.memory.arena.lifetimes import last_uses, lifetimes
from fed_asi.memory.arena.offsets import ALIGNMENT, aligned
from fed_asi.memory.arena.shares import Share, Shares
from fed_asi.memory.arena.stretches import alive, stretches
from fed_asi.memory.arena.trace import Trace


def shares(trace: Trace, names: Sequence[str], alignment: int = ALIGNMENT) -> Shares:
    """Return what each layer adds to a traced step.

    names: the names of the layers, in forward order.
    """
    return _Split(trace, names, alignment).found()


@dataclass(slots=True)
class _Split:
    """A trace with the stretch of every operation; -1 is before the first layer, len(names) is the update.

    Each by storage: owner: the layer to which a saved storage belongs. holder: the layer that made a held storage, and
    whether in the forward. passing: for a storage that bypasses layers, the first layer that reads it and the last
    operation that does. heirs: for a storage that takes the place of another, that other storage.
    """

    trace: Trace
    names: Sequence[str]
    alignment: int
    stretches: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    owner: dict[int, int] = field(default_factory=dict)
    holder: dict[int, tuple[int, bool]] = field(default_factory=dict)
    passing: dict[int, tuple[int, int]] = field(default_factory=dict)
    heirs: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        trace = self.trace
        self.stretches = stretches(trace, self.names)
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
        """Record the storages that the forward reads in two stretches: they bypass the layers in between."""
        readers: dict[int, list[int]] = {}
        for index, op in enumerate(self.trace.ops[: self.trace.forward]):
            for view in op.read:
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
        # The last entry, index -1: before the first layer.
        saved, held, renewed, passes = ([0] * (count + 2) for _ in range(4))
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
        """Return the last layer before this one whose input bypasses it; -1 if there is none."""
        every = (a for a, until in self.passing.values() if a < layer <= self.stretches[until])
        return max(every, default=-1)

    def _needs(self) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        """Return, by stretch, the most of its own bytes alive in its forward, inside a block, and in its backward."""
        forwards: dict[int, int] = {}
        insides: dict[int, int] = {}
        backwards: dict[int, int] = {}
        for index, (layer, living) in enumerate(zip(self.stretches, alive(self.trace), strict=True)):
            inside = any(a < layer and index <= until for a, until in self.passing.values())
            needs = backwards if index >= self.trace.forward else insides if inside else forwards
            own = sum(self.sizes[s] for s in living if self._counts(s, layer, index))
            needs[layer] = max(needs.get(layer, 0), own)
        return forwards, insides, backwards

    def _counts(self, storage: int, layer: int, index: int) -> bool:
        """Return whether a live storage is the stretch's own, and not part of the sums over other layers."""
        if layer == len(self.names):
            return True
        if self.owner.get(storage, layer) < layer or self.holder.get(storage, (layer,))[0] != layer:
            return False
        if index >= self.trace.forward:
            return True
        before = self.heirs.get(storage)
        if before is not None and storage in self.trace.ops[index].makes and self._passes_by(before, layer):
            return False  # it takes the place of a storage that bypasses the layer, which counts elsewhere
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
