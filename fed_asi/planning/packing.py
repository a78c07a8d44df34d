"""The exact choice of one form per layer within a device's RAM and flash.

A form adds bytes that stay (static), bytes that later layers find in their way (`Share`), and flash. With the layers
taken from the last to the first, what a choice needs of RAM is known by a few numbers: its static bytes, the most that
it needs at one time of those, what it holds for the update, and what it needs inside a block that is not closed yet.
So a Pareto dynamic programme over these, pruned by two linear-programming bounds, is exact:
    static + the trunk's arena <= RAM,   static + the most alive in the step <= RAM,   flash and saved bytes likewise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fed_asi.memory.arena.shares import Share
from fed_asi.planning.knapsack import Choices, Knapsack, Values

Table = npt.NDArray[np.int64]
STATIC, NEED, AFTER, PASSED, FLASH, KEPT = range(6)  # columns of a state
_BLOCK = 256  # states looked at in one go
_BEAM = 200  # states of a layer, the most promising, in a first look for a choice that fits
_TIE = 1e-9


@dataclass(frozen=True, slots=True)
class Form:
    """A form of a layer: what it is worth, and its bytes. flash: may be below 0, as what trains is in RAM.

    kept: what a budget covers.
    """

    value: float
    static: int
    flash: int
    share: Share
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """A device's bytes; None: no limit. trunk, before: what runs without any trained layer. around: of `Shares`."""

    ram: int | None
    flash: int | None
    trunk: int = 0
    before: int = 0
    around: tuple[int, ...] = ()
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class Packed:
    """One form a layer, by its index, what they are worth, and the RAM and flash that they take."""

    chosen: tuple[int, ...]
    value: float
    ram: int
    flash: int


def pack(
    layers: Sequence[Sequence[Form]],
    limits: Limits,
    beat: float = -np.inf,
    without: Collection[tuple[int, ...]] = (),
) -> Packed | None:
    """Return the choice of highest value within the limits; None where none fits, or none is worth more than `beat`.

    layers: in forward order. without: choices that are not to be made. Of equal values the one of least RAM counts.
    """
    search = _Search(layers, limits, beat, tuple(without))
    quick = search.best(_BEAM)  # nothing worth less than a choice that fits need be looked at
    if quick is not None:
        search.beat = max(beat, quick.value - _TIE * max(1.0, abs(quick.value)))
    return search.best() or quick


class _Search:
    """The programme: states are rows of `Table`, with their values, and the choices they came by."""

    def __init__(
        self,
        layers: Sequence[Sequence[Form]],
        limits: Limits,
        beat: float,
        without: tuple[tuple[int, ...], ...],
    ) -> None:
        self.layers, self.limits, self.beat, self.without = layers, limits, beat, without
        self.ram = np.iinfo(np.int64).max // 4 if limits.ram is None else limits.ram
        self.budget = np.iinfo(np.int64).max // 4 if limits.budget is None else limits.budget
        self.flash = np.iinfo(np.int64).max // 4 if limits.flash is None else limits.flash
        self.rests = [self._rest(i) for i in range(len(layers))]

    def _rest(self, count: int) -> tuple[Knapsack, Knapsack, int, int]:
        """Return what the first layers can be worth, by static bytes and by saved ones too; least flash, kept."""
        first = self.layers[:count]
        static = [_choices(forms, [one.static for one in forms]) for forms in first]
        both = [
            _choices(forms, [one.static + one.share.saved + one.share.renewed for one in forms])
            for forms in first
        ]
        return Knapsack(static), Knapsack(both), *_least(first)

    def best(self, width: int | None = None) -> Packed | None:
        """Return the best choice; with a width, one that is found by following only so many states."""
        states, values = np.zeros((1, 6), dtype=np.int64), np.zeros(1)
        paths = np.full(1, (1 << len(self.without)) - 1, dtype=object)
        trail: list[tuple[Table, Table]] = []
        for layer in reversed(range(len(self.layers))):
            states, values, paths, parents, picks = self._grown(layer, states, values, paths, width)
            if not len(states):
                return None
            trail.append((parents, picks))
        ram = states[:, STATIC] + np.maximum(
            np.maximum(states[:, NEED], states[:, AFTER]), max(self.limits.trunk, self.limits.before)
        )
        fits = (ram <= self.ram) & (states[:, FLASH] <= self.flash) & (values > self.beat) & (paths == 0)
        if not fits.any():
            return None
        rows = np.flatnonzero(fits)
        row = int(rows[np.lexsort((ram[rows], -values[rows]))[0]])
        chosen, at = [], row
        for parents, picks in reversed(trail):
            chosen.append(int(picks[at]))
            at = int(parents[at])
        return Packed(tuple(chosen), float(values[row]), int(ram[row]), int(states[row, FLASH]))

    def _grown(
        self, layer: int, states: Table, values: Values, paths: npt.NDArray[np.object_], width: int | None
    ) -> tuple[Table, Values, npt.NDArray[np.object_], Table, Table]:
        """Return the states with every form of one more layer, without those that nothing good can come of."""
        forms = self.layers[layer]
        count = len(forms)
        parents = np.repeat(np.arange(len(states)), count)
        picks = np.tile(np.arange(count), len(states))
        grown = _step(self._table(layer), states[parents], picks, self._place(layer))
        worth = values[parents] + np.array([one.value for one in forms])[picks]
        masks = np.array([self._mask(layer, pick) for pick in range(count)], dtype=object)
        on = paths[parents] & masks[picks]
        bound = self._bound(layer, grown, worth)
        slack = _TIE * max(1.0, abs(self.beat)) if self.beat > -np.inf else 0.0  # of the bound's sums
        alive = np.flatnonzero((bound > -np.inf) & (bound > self.beat - slack))
        if width is not None:
            alive = np.sort(alive[np.argsort(-bound[alive], kind="stable")[: 4 * width]])
        kept = alive[undominated(grown[alive], worth[alive], on[alive] == 0)]
        if width is not None:
            kept = np.sort(kept[np.argsort(-bound[kept], kind="stable")[:width]])
        return grown[kept], worth[kept], on[kept], parents[kept], picks[kept]

    def _table(self, layer: int) -> Table:
        rows = []
        for one in self.layers[layer]:
            part = one.share
            stays, held = part.saved + part.renewed, part.held + part.renewed
            forward = max(part.forward, part.inside)
            rows.append(
                (
                    one.static,
                    one.flash,
                    stays,
                    forward,
                    part.inside,
                    part.backward,
                    part.passes,
                    held,
                    one.kept,
                )
            )
        return np.array(rows, dtype=np.int64)

    def _place(self, layer: int) -> tuple[bool, bool]:
        """Return whether a block begins with this layer, and whether a block's input passes it by."""
        around = self.limits.around
        return layer in around, bool(around) and around[layer] >= 0

    def _mask(self, layer: int, pick: int) -> int:
        return sum(1 << i for i, one in enumerate(self.without) if one[layer] == pick)

    def _bound(self, layer: int, states: Table, worth: Values) -> Values:
        """Return what each state can be worth at most with the layers still to come; minus infinity if none fits."""
        by_static, by_both, flash, kept = self.rests[layer]
        quiet = max(self.limits.trunk, self.limits.before)
        room = self.ram - states[:, STATIC] - np.maximum(states[:, AFTER], quiet)
        rest = self.ram - states[:, STATIC] - states[:, NEED]
        bound = worth + np.minimum(by_static.bounds(room), by_both.bounds(rest))
        fits = (room >= 0) & (rest >= 0) & (states[:, FLASH] + flash <= self.flash)
        fits &= states[:, KEPT] + kept <= self.budget
        return np.where(fits & (bound > -np.inf), bound, -np.inf)


def _least(layers: Sequence[Sequence[Form]]) -> tuple[int, int]:
    """Return the least flash and kept bytes of some layers."""
    flash, kept = (
        sum(min(getattr(one, name) for one in forms) for forms in layers) for name in ("flash", "kept")
    )
    return flash, kept


def _choices(forms: Sequence[Form], sizes: Sequence[int]) -> Choices:
    return Choices(np.array(sizes, dtype=np.int64), np.array([one.value for one in forms]))


def _step(table: Table, states: Table, picks: Table, place: tuple[bool, bool]) -> Table:
    """Return the states before a layer from those behind it; see `most_alive`."""
    static, flash, stays, forward, inside, backward, passes, held, kept = table[picks].T
    opens, within = place
    need = np.maximum(np.maximum(forward, backward + states[:, AFTER]), stays + states[:, NEED])
    passed = np.where(states[:, PASSED] > 0, states[:, PASSED] + stays, 0)
    if opens:
        need, passed = np.maximum(need, stays + states[:, PASSED] + passes), np.zeros_like(passed)
    passed = np.maximum(passed, inside) if within else np.zeros_like(passed)
    columns = (
        states[:, STATIC] + static,
        need,
        states[:, AFTER] + held,
        passed,
        states[:, FLASH] + flash,
        states[:, KEPT] + kept,
    )
    return np.stack(columns, axis=1)


def undominated(states: Table, values: Values, free: npt.NDArray[np.bool_]) -> Table:
    """Return the rows that no other is as good as in every column and in value; of equals the first.

    states: (n, k), less is better. values: (n,), more is better. free: which rows may push others out.
    """
    varying = [i for i in range(states.shape[1]) if len(states) and np.ptp(states[:, i])]
    found = np.column_stack([-values, *(states[:, i].astype(np.float64) for i in varying)])
    order = np.lexsort(found.T[::-1])
    ranked, may = found[order], free[order]
    kept = np.ones(len(order), dtype=np.bool_)
    for start in range(0, len(order), _BLOCK):
        stop = min(start + _BLOCK, len(order))
        judges = np.flatnonzero(kept[:stop] & may[:stop])
        worse = (ranked[judges, None, 1:] <= ranked[None, start:stop, 1:]).all(axis=2)
        worse &= judges[:, None] < np.arange(start, stop)[None, :]
        kept[start:stop] &= ~worse.any(axis=0)
    return np.sort(order[kept])
