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

A form's numbers depend on the micro-batch, on whether the layer runs before the first trained one, is it, or comes
after, and, within a block with a way around it, on whether that way has a gradient. That is the key they are known by.

To come: how frozen weights are stored, and the resolution. Both are further things that a `Bench` is made for, as the
update rule is, and that the best of is taken over; nothing else here knows of them.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fed_asi.compression.compress import compress_known_
from fed_asi.compression.graph import analyse
from fed_asi.errors import BudgetError, ConfigError
from fed_asi.layers.copying import copied
from fed_asi.memory.arena.planned import Arena, inference_arena, laid_out
from fed_asi.memory.arena.shares import Share, Shares, shares
from fed_asi.memory.arena.step import Gradients, MakeMover, MakeOptimizer, record_step
from fed_asi.memory.device import DeviceMemory, in_all
from fed_asi.methods import Frozen, Vanilla
from fed_asi.planning.packing import Form, Limits, Packed, pack
from fed_asi.planning.plan import FLOOR, Plan
from fed_asi.planning.profile import Candidate, LayerProfile, Profile
from fed_asi.planning.question import Options, Question, admitted_micro_batches, ask, trained_parameters
from fed_asi.units import format_bytes, parse_bytes

PATIENCE = 20  # plans ruled out for their layout before the search keeps clear of what layouts lose


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of gradients in a step, and what moves the weights; see `fed_asi.arena`."""

    gradients: Gradients
    optimizer: MakeOptimizer | None = None
    mover: MakeMover | None = None
    momentum: bool = False


@dataclass(frozen=True, slots=True)
class Within:
    """What a device has, in bytes; None: no limit. reserve_bytes: of its RAM, for what is not counted."""

    ram_bytes: int | None = None
    flash_bytes: int | None = None
    budget_bytes: int | None = None
    reserve_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """A plan as it was traced: what it needs, and of every layer its share."""

    memory: DeviceMemory
    shares: Shares


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """The best plan of a device, what it needs, and how many steps were traced for it."""

    plan: Plan
    memory: DeviceMemory
    traced: int


class Bench:
    """A network on which steps are traced, in the mode it trains in; it is only read.

    model: the trained part at least. trunk: the frozen part before it. x, y: as many images as the largest
    micro-batch has, of what goes into the trunk, or into the model where there is none. copies: of trained weights,
    for a strategy and a codec.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        rule: Rule,
        *,
        trunk: nn.Module | None = None,
        copies: int = 0,
    ) -> None:
        self.rule, self.copies = rule, copies
        self._model, self._y = copied(model), y
        self._graph = analyse(self._model)
        self._before: Arena | None = None if trunk is None else inference_arena(trunk, x[:1])
        with torch.no_grad():
            self._x = x if trunk is None else trunk(x)

    def trunk_bytes(self, micro_batch: int) -> int:
        """Return the RAM of the trunk's phase, beside what stays: its arena, and features that wait."""
        return 0 if self._before is None else self._before.bytes + self._waiting(micro_batch)

    def measure(self, plan: Plan, names: list[str]) -> Measured:
        """Return what a plan needs. names: of the profile's layers, in forward order."""
        compress_known_(self._model, self._graph, plan)
        rule, b = self.rule, plan.micro_batch
        trace = record_step(
            self._model,
            self._x[:b],
            self._y[:b],
            gradients=rule.gradients,
            optimizer=rule.optimizer,
            mover=rule.mover,
        )
        waiting = 0 if self._before is None else self._waiting(b)
        memory = in_all(laid_out(trace), self._before, waiting_bytes=waiting, copies=self.copies)
        return Measured(memory, shares(trace, names))

    def _waiting(self, micro_batch: int) -> int:
        return self._x[1:micro_batch].nbytes


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
    limits = Within(
        parse_bytes(ram),
        parse_bytes(flash),
        parse_bytes(budget),
        0 if reserve is None else parse_bytes(reserve) or 0,
    )
    update = "layer" if bench.rule.mover is not None else "step"
    question = ask(profile, Options(**options, update=update))
    _check_sized(question)
    return _Search(question, bench, limits, admitted_micro_batches(profile, micro_batch)).best()


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


@dataclass(frozen=True, slots=True)
class _Problem:
    """One micro-batch and one first trained layer."""

    micro_batch: int
    first: int


class _Entry(NamedTuple):
    """A problem in the order in which they are looked at: worth most, of equals of the largest micro-batch.

    turn: how much was known of its micro-batch when it was solved.
    """

    minus_worth: float
    minus_micro_batch: int
    first: int
    turn: int = -1
    packed: Packed | None = None


@dataclass(slots=True)
class _Search:
    """Best first over the problems: each by what it can be worth at most, as far as is known."""

    question: Question
    bench: Bench
    within: Within
    micro_batches: tuple[int, ...]
    known: dict[tuple[Any, ...], Share] = field(default_factory=dict)
    ruled_out: dict[_Problem, list[tuple[int, ...]]] = field(default_factory=dict)
    turns: dict[int, int] = field(default_factory=dict)  # by micro-batch, how often something was learnt
    around: tuple[int, ...] = ()
    before: dict[int, int] = field(default_factory=dict)  # by micro-batch, alive before the first layer
    flash: int | None = None  # of a plan that trains nothing
    other: int = 0  # static bytes that are no layer's
    margin: int = 0
    traced: int = 0
    worst: DeviceMemory | None = None

    @property
    def layers(self) -> tuple[LayerProfile, ...]:
        return self.question.profile.layers

    def best(self) -> DevicePlan:
        """Return the best plan; see the module for the turns it takes."""
        heap: list[_Entry] = [_Entry(-math.inf, -one.micro_batch, one.first) for one in self._problems()]
        heapq.heapify(heap)
        while heap:
            entry = heapq.heappop(heap)
            problem = _Problem(-entry.minus_micro_batch, entry.first)
            if entry.packed is None or entry.turn != self._turn(problem):
                found = self._solve(problem)
                if found is not None:
                    solved = entry._replace(minus_worth=-found.value, turn=self._turn(problem), packed=found)
                    heapq.heappush(heap, solved)
                continue
            plan = self._plan(problem, entry.packed)
            measured = self.bench.measure(plan, [one.name for one in self.layers])
            self.traced += 1
            if self._fits(measured.memory):
                return DevicePlan(self._noted(plan), self._reserved(measured.memory), self.traced)
            self._learn(problem, entry.packed, measured)
            heapq.heappush(heap, entry)
        raise self._nothing_fits()

    def _problems(self) -> list[_Problem]:
        question = self.question
        firsts = [i for i, one in enumerate(self.layers) if one.name in question.allowed or one.head]
        must = next(i for i, one in enumerate(self.layers) if one.name in question.forced or one.head)
        return [_Problem(b, first) for b in self.micro_batches for first in firsts if first <= must]

    def _turn(self, problem: _Problem) -> int:
        return self.turns.get(problem.micro_batch, 0)

    def _candidates(self, problem: _Problem, index: int) -> list[Candidate]:
        layer = self.layers[index]
        if index < problem.first:
            return [Candidate(Frozen(), 0, 0, layer.weight_norm, 0.0)]
        found = self.question.candidates(layer, problem.micro_batch)
        return (
            [c for c in found if c.method.trains_bias or c.method.trains_weight]
            if index == problem.first
            else found
        )

    def _solve(self, problem: _Problem) -> Packed | None:
        forms = [
            [self._form(problem, i, c) for c in self._candidates(problem, i)] for i in range(len(self.layers))
        ]
        if not all(forms):
            return None
        b, within = problem.micro_batch, self.within
        ram = (
            None
            if within.ram_bytes is None
            else within.ram_bytes - within.reserve_bytes - self.other - self.margin
        )
        flash = None if within.flash_bytes is None else within.flash_bytes - (self.flash or 0)
        floor = self.question.profile.floors[b][problem.first]
        budget = None if within.budget_bytes is None else within.budget_bytes - floor
        around = self.around or (-1,) * len(self.layers)
        limits = Limits(ram, flash, self.bench.trunk_bytes(b), self.before.get(b, 0), around, budget)
        return pack(forms, limits, without=self.ruled_out.get(problem, ()))

    def _form(self, problem: _Problem, index: int, candidate: Candidate) -> Form:
        layer, question = self.layers[index], self.question
        trained = layer.element_bytes * trained_parameters(layer, candidate.method)
        share = self.known.get(self._key(problem, index, candidate))
        if share is None:
            share = self._assumed(layer, candidate, trained)
        rule = self.bench.rule
        times = 1 + (rule.gradients == "accumulated") + rule.momentum + self.bench.copies
        static = times * trained + share.mean + share.factors
        return Form(
            question.value(layer, candidate), static, share.constant - trained, share, candidate.saved_bytes
        )

    def _assumed(self, layer: LayerProfile, candidate: Candidate, trained: int) -> Share:
        """Return what a form needs at least, as far as a profile tells."""
        method = candidate.method
        # Warm factors are static, and a whole input may be another layer's too.
        saved = 0 if method.warm_start or isinstance(method, Vanilla) else candidate.saved_bytes
        whole = method.trains_weight and not candidate.thin and self.bench.rule.mover is not None
        gradient = (
            self.question.gradient_bytes(layer, candidate) if whole and not method.picks_channels else 0
        )
        held = trained if self.bench.rule.gradients == "held" and not method.picks_channels else 0
        return Share(saved=saved, held=held, backward=max(saved + gradient, held))

    def _key(self, problem: _Problem, index: int, candidate: Candidate) -> tuple[Any, ...]:
        first, around = problem.first, self.around[index] if self.around else -1
        role = "before" if index < first else "first" if index == first else "after"
        detour = role == "after" and around >= 0 and first >= around
        return problem.micro_batch, index, candidate.method, role, detour

    def _learn(self, problem: _Problem, packed: Packed, measured: Measured) -> None:
        """Take down what a trace told; where it told nothing new, rule the plan out."""
        memory, b = measured.memory, problem.micro_batch
        fresh = not self.around
        self.around = measured.shares.around
        forms = []
        for i, (pick, share) in enumerate(zip(packed.chosen, measured.shares.layers, strict=True)):
            candidate = self._candidates(problem, i)[pick]
            key = self._key(problem, i, candidate)
            fresh |= key not in self.known
            self.known.setdefault(key, share)
            forms.append(self._form(problem, i, candidate))
        before = max(self.before.get(b, 0), measured.shares.before)
        fresh |= before != self.before.get(b, 0) or self.flash is None
        self.before[b] = before
        self.flash = memory.flash_bytes - sum(one.flash for one in forms)
        self.other = memory.static_bytes - sum(one.static for one in forms)
        if self.worst is None or memory.ram_bytes < self.worst.ram_bytes:
            self.worst = memory
        self.turns[b] = self.turns.get(b, 0) + 1
        if fresh:
            return
        self.ruled_out.setdefault(problem, []).append(packed.chosen)
        if sum(map(len, self.ruled_out.values())) >= PATIENCE:
            gap = memory.ram_bytes - packed.ram - self.other
            self.margin += max(gap - self.margin, 16)
            self.ruled_out.clear()

    def _fits(self, memory: DeviceMemory) -> bool:
        within = self.within
        ram, flash = within.ram_bytes, within.flash_bytes
        return (ram is None or memory.ram_bytes + within.reserve_bytes <= ram) and (
            flash is None or memory.flash_bytes <= flash
        )

    def _reserved(self, memory: DeviceMemory) -> DeviceMemory:
        return replace(memory, reserve_bytes=self.within.reserve_bytes)

    def _plan(self, problem: _Problem, packed: Packed) -> Plan:
        question, b = self.question, problem.micro_batch
        picked = [
            (layer, self._candidates(problem, i)[pick])
            for i, (layer, pick) in enumerate(zip(self.layers, packed.chosen, strict=True))
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
            value=packed.value,
            layer_bytes={**sizes, FLOOR: floor},
            means={layer.name: layer.mean for layer, c in trained if c.method.centers},
            energies={layer.name: layer.channel_energies for layer, c in trained if c.method.picks_channels},
            bases={one.name: one.bases[str(c.method)] for one, c in trained if str(c.method) in one.bases},
        )

    def _noted(self, plan: Plan) -> Plan:
        if not self.margin:
            return plan
        note = f"{format_bytes(self.margin)} of RAM are left, as many layouts do not reach the least possible"
        return replace(plan, notes=(*plan.notes, note))

    def _nothing_fits(self) -> BudgetError:
        within, memory = self.within, self._smallest()
        if within.flash_bytes is not None and memory.flash_bytes > within.flash_bytes:
            return BudgetError(
                f"flash {format_bytes(within.flash_bytes)} is below what is only read, "
                f"{format_bytes(memory.flash_bytes)}: frozen weights, statistics and tables, as they are stored. "
                "Take a smaller network."
            )
        if within.ram_bytes is None:
            return BudgetError(
                f"no plan fits the budget of {format_bytes(within.budget_bytes)} and this flash"
            )
        tensors = ", ".join(f"{one.name} {format_bytes(one.bytes)}" for one in memory.largest())
        return BudgetError(
            f"ram {format_bytes(within.ram_bytes)} is below the smallest step, {format_bytes(memory.ram_bytes)}: "
            f"{format_bytes(memory.static_bytes)} stay, and the {memory.phase} needs "
            f"{format_bytes(max(memory.trunk_bytes, memory.step.bytes))}, "
            f"{format_bytes(memory.reserve_bytes)} are reserved. Largest there: {tensors}. "
            "Lower the resolution, or take a smaller network."
        )

    def _smallest(self) -> DeviceMemory:
        """Return what the smallest step needs: of the head alone in the form of fewest bytes, one image at a time."""
        b, last = min(self.micro_batches), len(self.layers) - 1
        problem = _Problem(b, last)
        candidates = self._candidates(problem, last)
        at = min(range(len(candidates)), key=lambda i: self._form(problem, last, candidates[i]).static)
        packed = Packed((*(0 for _ in range(last)), at), 0.0, 0, 0)
        memory = self.bench.measure(self._plan(problem, packed), [one.name for one in self.layers]).memory
        found = memory if self.worst is None or memory.ram_bytes <= self.worst.ram_bytes else self.worst
        return self._reserved(found)
