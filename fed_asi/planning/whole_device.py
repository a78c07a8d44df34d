"""The best plan within a device's RAM and flash: exact, though hardly any plan's arena is ever traced.

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

When weights move and how what is only read is stored are what a `Bench` is made for: where they may be chosen, there is
a planner for each, and `best_of` takes the best of their plans.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from fed_asi.errors import BudgetError, ConfigError
from fed_asi.memory.device import DeviceMemory
from fed_asi.memory.stored import FORMATS, Format
from fed_asi.planning.bench import Bench, Measured
from fed_asi.planning.forms_known import KnownForms, Problem
from fed_asi.planning.packing import Form, Limits, Packed, most, pack
from fed_asi.planning.plan import FLOOR, Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.question import Options, Question, admitted_micro_batches, ask
from fed_asi.planning.within import Within, nothing_fits
from fed_asi.units import format_bytes

PATIENCE = 20  # plans ruled out for their layout before the search keeps clear of what layouts lose
WORTH_IT = 0.01  # of a plan's value: what a coarser format has to add
_TIE = 1e-9  # of a value: sums in another order differ by less
Chosen = tuple[Problem, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The best plan of a device, what it needs, and how many steps were traced for it."""

    plan: Plan
    memory: DeviceMemory
    traced: int


def plan_device(
    profile: Profile,
    bench: Bench,
    *,
    ram: str | int | None = None,
    flash: str | int | None = None,
    reserve: str | int | None = None,
    budget: str | int | None = None,
    micro_batch: int | None = None,
    **options: Any,
) -> DevicePlan:
    """Return the plan of highest value that fits a device's RAM, flash and budget; exact.

    ram, flash, budget: bytes or text such as "320 KiB"; None: no limit. reserve: of the RAM, for the runtime.
    options: of `plan`, but for `count` and `update`, which are "saved" and the bench's.
    Raises BudgetError where no plan fits, with the phase that needs too much; ConfigError for methods whose bytes are
    not known beforehand and for what `plan` refuses.
    """
    limits = Within.of(ram, flash, budget, reserve)
    return DevicePlanner(profile, bench, **options).best(limits, micro_batch)


class DevicePlanner:
    """Plans of one network for devices with any limits, each with all that was traced for those before it."""

    def __init__(self, profile: Profile, bench: Bench, **options: Any) -> None:
        update = "layer" if bench.rule(profile.micro_batches[0]).mover is not None else "step"
        self.question = ask(profile, Options(**options, update=update))
        _check_sized(self.question)
        self.bench = bench
        self._measured: dict[Chosen, Measured] = {}

    def best(self, within: Within, micro_batch: int | None = None) -> DevicePlan:
        """Return the plan of highest value within these limits. Raises as `plan_device` does."""
        sizes = admitted_micro_batches(self.question.profile, micro_batch)
        # What others asked must not decide between plans of one value: traces alone are kept.
        return _Search(
            KnownForms(self.question, self.bench), self.bench, within, sizes, self._measured
        ).best()


def best_of(planners: Sequence[DevicePlanner], within: Within, micro_batch: int | None = None) -> DevicePlan:
    """Return the best plan of planners of several formats and updates.

    Of one format it is the plan of highest value, of equals the first one's. A coarser format has to be worth it: see
    `finest`. Raises BudgetError where no planner has a plan, the last one's.
    """
    best: dict[Format, DevicePlan] = {}
    refused: BudgetError | None = None
    for planner in planners:
        form = planner.bench.storage
        try:
            found = planner.best(within, micro_batch)
        except BudgetError as error:
            refused = error
            continue
        if form not in best or _above(found.plan.value, best[form].plan.value):
            best[form] = found
    if not best:
        raise refused or ConfigError("no planner was asked")
    every = [best[form] for form in FORMATS if form in best]
    return every[finest([one.plan.value for one in every])]


def _above(value: float, other: float) -> bool:
    return value > other + _TIE * max(1.0, abs(other))


def finest(values: Sequence[float]) -> int:
    """Return the index of the first of several formats, the finest first, that is all but as good as the best.

    values: what plans are worth in each. One part in a hundred is what a coarser format has to add.
    """
    most = max(values)
    return next(i for i, one in enumerate(values) if one >= most - WORTH_IT * abs(most))


def _check_sized(question: Question) -> None:
    loose = {
        c.method.kind
        for layer in question.profile.layers
        for b in layer.candidates
        for c in question.candidates(layer, b)
        if not c.method.sized
    }
    if loose:
        raise ConfigError(
            f"ram: the bytes of {' and '.join(sorted(loose))} depend on the data, so no RAM can be promised; "
            "leave it out of methods"
        )


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
class _Search:
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
