"""The search for the best plan within a device's RAM and flash: exact, though few plans' arenas are traced.

How a plan's arena is known. Its exact size takes a trace of the step (a second, for a large network), and there are
far too many plans to trace them all. But the most bytes alive in a step follow from a few numbers per layer
(`arena/shares.py`), and a layer's numbers do not depend on the forms of other layers. So one trace gives the numbers
of every layer in its form, for all plans that have the layer in that form. packing.py finds the best plan by them.

Which plans are traced. The search is optimistic and corrects itself:
    1. A form that has not been traced is assumed to need as little as possible: the saved bytes in the profile, and
       its gradient if that is made whole. This is never more than the form will turn out to need.
    2. Over all micro-batches and first trained layers, the plan of highest value under these numbers is traced.
    3. If its measured RAM and flash are within the limits, it is the best plan: no other is worth more, even by
       numbers that flatter it. If not, the trace replaces the assumptions about its forms, and 2. is repeated.
    4. If all of its numbers were known already, the formula is below the truth: the layout does not reach the lower
       bound, or there are blocks within blocks. Then this one plan is ruled out, and 2. is repeated.
The search ends, because each turn learns a form or rules out a plan, and it ends with the best plan. There is one
exception: once `PATIENCE` plans were ruled out because of their layout, the search leaves that many bytes of RAM free,
and a note of the plan says so.

Traces made for one device serve the next, as the devices of a fleet differ in their limits, not in the network. What
follows from them is computed anew for each device: among plans of equal value, the choice must not depend on which
device asked first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from fed_asi.memory.device import DeviceMemory
from fed_asi.planning.bench import Bench, Measured
from fed_asi.planning.forms_known import KnownForms, Problem
from fed_asi.planning.packing import Form, Limits, Packed, most, pack
from fed_asi.planning.plan import FLOOR, Plan
from fed_asi.planning.within import Within, nothing_fits
from fed_asi.units import format_bytes

PATIENCE = 20  # plans ruled out for their layout before the search leaves RAM free for what layouts lose
Chosen = tuple[Problem, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A device's best plan, the memory of its step, and how many steps were traced to find it."""

    plan: Plan
    memory: DeviceMemory
    traced: int


class _Entry(NamedTuple):
    """A problem in the queue of the search: highest worth first, then the largest micro-batch.

    minus_worth: at first of the best forms without limits, then of mixtures of forms within the limits, last of a plan.
    turn: what `KnownForms.turn` said when `packed`, that plan, was found.
    """

    minus_worth: float
    minus_micro_batch: int
    first: int
    bounded: bool = False
    turn: int = -1
    packed: Packed | None = None

    @property
    def problem(self) -> Problem:
        return Problem(-self.minus_micro_batch, self.first)


@dataclass(slots=True)
class Search:
    """A best-first search over the problems, ordered by the most that each can be worth, as far as is known."""

    known: KnownForms
    bench: Bench
    within: Within
    micro_batches: tuple[int, ...]
    measured: dict[Chosen, Measured]
    ruled_out: dict[Problem, list[tuple[int, ...]]] = field(default_factory=dict)
    margin: int = 0
    traced: int = 0
    fresh: bool = False  # whether the newest trace gave a number that was not known
    looked_at: dict[Chosen, Measured] = field(default_factory=dict)  # traces used in this search

    def best(self) -> DevicePlan:
        """Return the best plan; the module's docstring explains how. Raises BudgetError if none fits."""
        heap = [entry for one in self._problems() if (entry := self._begun(one)) is not None]
        heapq.heapify(heap)
        while heap:
            entry = heapq.heappop(heap)
            problem, packed = entry.problem, entry.packed
            if packed is None or entry.turn != self.known.turn(problem):
                if (nearer := self._nearer(entry)) is not None:
                    heapq.heappush(heap, nearer)
                continue
            plan = self._plan(problem, packed.chosen, packed.value)
            memory = self._learnt(problem, packed, plan)
            if self.within.holds(memory):
                reserved = replace(memory, reserve_bytes=self.within.reserve_bytes)
                return DevicePlan(self._noted(plan), reserved, self.traced)
            heapq.heappush(heap, entry._replace(packed=None))
        raise nothing_fits(self.within, self._smallest())

    def _begun(self, problem: Problem) -> _Entry | None:
        """Return a problem with the worth of its best forms; None if one of its layers has no form."""
        forms = self._forms(problem)
        if not all(forms):
            return None
        worth = sum(max(one.value for one in of_layer) for of_layer in forms)
        return _Entry(-worth, -problem.micro_batch, problem.first)

    def _nearer(self, entry: _Entry) -> _Entry | None:
        """Return a problem with a tighter bound or, if it has one, its best plan; None if nothing fits."""
        problem, turn = entry.problem, self.known.turn(entry.problem)
        forms, limits = self._forms(problem), self._limits(problem)
        if not entry.bounded:
            worth = most(forms, limits)
            return None if worth == -math.inf else entry._replace(minus_worth=-worth, bounded=True)
        found = pack(forms, limits, self.ruled_out.get(problem, ()))
        return None if found is None else entry._replace(minus_worth=-found.value, turn=turn, packed=found)

    def _problems(self) -> list[Problem]:
        question, layers = self.known.question, self.known.layers
        firsts = [i for i, one in enumerate(layers) if one.name in question.allowed or one.head]
        must = next(i for i, one in enumerate(layers) if one.name in question.forced or one.head)
        return [Problem(b, first) for b in self.micro_batches for first in firsts if first <= must]

    def _forms(self, problem: Problem) -> list[list[Form]]:
        known = self.known
        return [
            [known.form(problem, i, c) for c in known.candidates(problem, i)]
            for i in range(len(known.layers))
        ]

    def _limits(self, problem: Problem) -> Limits:
        known, b, within = self.known, problem.micro_batch, self.within
        ram = within.arena_bytes
        ram = None if ram is None else ram - known.other - self.margin
        flash = None if within.flash_bytes is None else within.flash_bytes - (known.flash or 0)
        floor = known.question.profile.floors[b][problem.first]
        budget = None if within.budget_bytes is None else within.budget_bytes - floor
        around = known.around or (-1,) * len(known.layers)
        return Limits(ram, flash, self.bench.trunk_bytes(b), known.before.get(b, 0), around, budget)

    def _learnt(self, problem: Problem, packed: Packed, plan: Plan) -> DeviceMemory:
        """Return the memory of a plan; rule the plan out if it does not fit and its trace gave nothing new."""
        new = (problem, packed.chosen) not in self.looked_at
        memory = self._trace(problem, packed.chosen, plan).memory
        if self.within.holds(memory) or (new and self.fresh):
            return memory
        self.ruled_out.setdefault(problem, []).append(packed.chosen)
        if sum(map(len, self.ruled_out.values())) >= PATIENCE:
            gap = memory.ram_bytes - packed.ram - self.known.other
            self.margin += max(gap - self.margin, 16)
            self.ruled_out.clear()
        return memory

    def _trace(self, problem: Problem, chosen: tuple[int, ...], plan: Plan) -> Measured:
        """Return the measurements of a plan, traced now or for an earlier device."""
        key = problem, chosen
        if key not in self.looked_at:
            if key not in self.measured:
                self.measured[key] = self.bench.measure(plan, [one.name for one in self.known.layers])
                self.traced += 1
            found = self.looked_at[key] = self.measured[key]
            self.fresh = self.known.learn(problem, chosen, found)
        return self.looked_at[key]

    def _plan(self, problem: Problem, chosen: tuple[int, ...], value: float = 0.0) -> Plan:
        question, known, b = self.known.question, self.known, problem.micro_batch
        picked = [
            (layer, known.candidates(problem, i)[pick])
            for i, (layer, pick) in enumerate(zip(known.layers, chosen, strict=True))
        ]
        trained = [(layer, c) for layer, c in picked if c.method.trains_bias]
        floor = question.profile.floors[b][problem.first]
        sizes: Mapping[str, int] = {layer.name: c.saved_bytes for layer, c in trained}
        return Plan(
            fingerprint=question.profile.fingerprint,
            budget_bytes=self.within.budget_bytes,
            planned_bytes=floor + sum(sizes.values()),
            micro_batch=b,
            methods={layer.name: c.method for layer, c in trained},
            objective=question.objective,
            value=value,
            layer_bytes={**sizes, FLOOR: floor},
            means={layer.name: layer.mean for layer, c in trained if c.method.centers},
            energies={layer.name: layer.channel_energies for layer, c in trained if c.method.picks_channels},
            bases={one.name: one.bases[str(c.method)] for one, c in trained if str(c.method) in one.bases},
            update=self.bench.update,
            storage=None if self.bench.update is None else self.bench.storage,
        )

    def _noted(self, plan: Plan) -> Plan:
        if not self.margin:
            return plan
        note = f"{format_bytes(self.margin)} of RAM are left, as many layouts do not reach the least possible"
        return replace(plan, notes=(*plan.notes, note))

    def _smallest(self) -> DeviceMemory:
        """Return the memory of the smallest step traced.

        The step of the fewest layers in their smallest forms is traced first, if it was not yet.
        """
        problems = self._problems()
        b, last = min(one.micro_batch for one in problems), max(one.first for one in problems)
        problem = Problem(b, last)
        chosen = tuple(self._lightest(problem, i) for i in range(len(self.known.layers)))
        self._trace(problem, chosen, self._plan(problem, chosen))
        among = [m.memory for (one, _), m in self.looked_at.items() if one in problems]
        return min(among, key=lambda memory: memory.ram_bytes)

    def _lightest(self, problem: Problem, index: int) -> int:
        """Return the index of a layer's form with the fewest bytes, as far as is known."""
        forms = [self.known.form(problem, index, c) for c in self.known.candidates(problem, index)]
        sizes = [one.static + max(one.share.forward, one.share.backward) for one in forms]
        return sizes.index(min(sizes))
