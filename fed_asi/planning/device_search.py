"""The search for the best plan within a device's RAM and flash: exact, though hardly any plan's arena is traced.

How a plan's arena is known. It takes a trace of the step (a second, for a large network) to know an arena, and there
are more plans than atoms. But the most bytes alive in a step follow from a few numbers a layer (`arena/shares.py`):
of what a layer does in its form nothing depends on the forms of the others. So one trace tells those numbers for every
layer in the form that it had, for all plans that have it in that form; packing.py finds the best plan by them.

Which traces. The search is optimistic and corrects itself:
    1. Of a form that no trace has had yet as little is assumed as can be: what the profile says that it saves, and its
       gradient where that is whole. Never more than it will turn out to need.
    2. Of all micro-batches and first trained layers, the plan of highest value under these numbers is traced.
    3. If its RAM and flash, as measured and laid out, are within the limits, it is the best plan there is: all others
       are worth no more even by numbers that flatter them. Else its forms are known from now on, and 2. comes again.
    4. If everything about it was known, the formula was below the truth: its layout does not reach the bound, or blocks
       lie within blocks. Then this one plan is ruled out, and 2. comes again.
That ends, as every turn learns a form or rules out a plan, and it ends with the best plan. Only where `PATIENCE` plans
were ruled out for their layout does the search keep clear of that many bytes of RAM; a note of the plan then says so.
Traces made for one device serve the next: a fleet's devices differ in their limits, not in the network. What follows
from them is found anew, so that of plans of one value a device has the same whoever was asked before it.
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

PATIENCE = 20  # plans ruled out for their layout before the search keeps clear of what layouts lose
Chosen = tuple[Problem, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The best plan of a device, what it needs, and how many steps were traced for it."""

    plan: Plan
    memory: DeviceMemory
    traced: int


class _Entry(NamedTuple):
    """A problem in the order in which they are looked at: worth most, of equals of the largest micro-batch.

    minus_worth: first of the best forms without any limit, then of mixtures of forms within them, then of a plan.
    turn: how much was known of its micro-batch then. packed: that plan.
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
    """Best first over the problems: each by what it can be worth at most, as far as is known."""

    known: KnownForms
    bench: Bench
    within: Within
    micro_batches: tuple[int, ...]
    measured: dict[Chosen, Measured]
    ruled_out: dict[Problem, list[tuple[int, ...]]] = field(default_factory=dict)
    margin: int = 0
    traced: int = 0
    fresh: bool = False  # whether the newest trace told something new
    looked_at: dict[Chosen, Measured] = field(default_factory=dict)  # in this search

    def best(self) -> DevicePlan:
        """Return the best plan; see the module for the turns it takes."""
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
        """Return a problem with what its best forms are worth; None where a layer has no form in it."""
        forms = self._forms(problem)
        if not all(forms):
            return None
        worth = sum(max(one.value for one in of_layer) for of_layer in forms)
        return _Entry(-worth, -problem.micro_batch, problem.first)

    def _nearer(self, entry: _Entry) -> _Entry | None:
        """Return a problem with a better bound, or else its best plan; None where nothing fits."""
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
        """Return what a plan needs; where its trace tells nothing new and it does not fit, rule it out."""
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
        """Return a plan as traced, now or for a device before."""
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
        """Return what the smallest step traced needs: at least that of fewest layers, each in its smallest form."""
        problems = self._problems()
        b, last = min(one.micro_batch for one in problems), max(one.first for one in problems)
        problem = Problem(b, last)
        chosen = tuple(self._lightest(problem, i) for i in range(len(self.known.layers)))
        self._trace(problem, chosen, self._plan(problem, chosen))
        among = [m.memory for (one, _), m in self.looked_at.items() if one in problems]
        return min(among, key=lambda memory: memory.ram_bytes)

    def _lightest(self, problem: Problem, index: int) -> int:
        """Return which form of a layer has the fewest bytes, as far as is known."""
        forms = [self.known.form(problem, index, c) for c in self.known.candidates(problem, index)]
        sizes = [one.static + max(one.share.forward, one.share.backward) for one in forms]
        return sizes.index(min(sizes))
