"""What is known of the forms of layers: measured where a trace had them, otherwise assumed, never too high.

A form's numbers depend on the micro-batch, on the layer's role (before the first trained layer, that layer itself, or
after it) and, inside a residual block, on whether its shortcut has a gradient. They are stored under these keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fed_asi.memory.arena.shares import Share
from fed_asi.memory.device import DeviceMemory
from fed_asi.memory.stored import trained_bytes
from fed_asi.methods import Frozen
from fed_asi.planning.bench import Bench, Measured
from fed_asi.planning.packing import Form
from fed_asi.planning.profile import Candidate, LayerProfile
from fed_asi.planning.question import Question, trained_parameters


@dataclass(frozen=True, slots=True)
class Problem:
    """One micro-batch and one first trained layer."""

    micro_batch: int
    first: int


@dataclass(slots=True)
class KnownForms:
    """The numbers of forms, from traces on a bench.

    around: see `Shares`. before: for each micro-batch, the bytes alive before the first layer. flash: bytes that belong
    to no layer; None before the first trace. other: static bytes that belong to no layer. turns: number of traces
    learnt from, by micro-batch. smallest: the memory of the traced step with the least RAM.
    """

    question: Question
    bench: Bench
    shares: dict[tuple[Any, ...], Share] = field(default_factory=dict)
    around: tuple[int, ...] = ()
    before: dict[int, int] = field(default_factory=dict)
    flash: int | None = None
    other: int = 0
    turns: dict[int, int] = field(default_factory=dict)
    smallest: DeviceMemory | None = None
    _candidates: dict[tuple[Problem, int], list[Candidate]] = field(default_factory=dict)
    _forms: dict[tuple[Any, ...], tuple[Share | None, Form]] = field(default_factory=dict)

    @property
    def layers(self) -> tuple[LayerProfile, ...]:
        """The profile's layers, in forward order."""
        return self.question.profile.layers

    def candidates(self, problem: Problem, index: int) -> list[Candidate]:
        """Return the forms that a layer may take: frozen before the first trained layer, trained at it."""
        found = self._candidates.get((problem, index))
        if found is None:
            found = self._candidates[problem, index] = self._found(problem, index)
        return found

    def _found(self, problem: Problem, index: int) -> list[Candidate]:
        layer = self.layers[index]
        if index < problem.first:
            return [Candidate(Frozen(), 0, 0, layer.weight_norm, 0.0)]
        found = self.question.candidates(layer, problem.micro_batch)
        if index > problem.first:
            return found
        return [c for c in found if c.method.trains_bias or c.method.trains_weight]

    def form(self, problem: Problem, index: int, candidate: Candidate) -> Form:
        """Return the value and the bytes of a form, as far as known; remembered until a trace gives better numbers."""
        key = self._key(problem, index, candidate)
        share = self.shares.get(key)
        before = self._forms.get(key)
        if before is None or before[0] is not share:
            before = self._forms[key] = (
                share,
                self._formed(self.layers[index], candidate, share, problem.micro_batch),
            )
        return before[1]

    def _formed(
        self, layer: LayerProfile, candidate: Candidate, share: Share | None, micro_batch: int
    ) -> Form:
        trained = layer.element_bytes * trained_parameters(layer, candidate.method)
        if share is None:
            share = self._assumed(layer, candidate, trained, micro_batch)
        rule = self.bench.rule(micro_batch)
        times = (rule.gradients == "accumulated") + rule.momentum + self.bench.copies
        held = trained_bytes(trained, self.bench.trained_as) + times * trained
        static = held + share.mean + share.factors
        value = self.question.value(layer, candidate)
        flash = share.constant + self.bench.read_bytes(layer.name, candidate.method)
        return Form(value, static, flash, share, candidate.saved_bytes)

    def _assumed(self, layer: LayerProfile, candidate: Candidate, trained: int, micro_batch: int) -> Share:
        """Return the least bytes that a form can need, from the profile alone."""
        method, rule = candidate.method, self.bench.rule(micro_batch)
        # Warm factors are static, and a whole input may be shared with another layer.
        saved = 0 if method.warm_start or method.keeps_whole else candidate.saved_bytes
        whole = method.trains_weight and not candidate.thin and rule.mover is not None
        gradient = (
            self.question.gradient_bytes(layer, candidate) if whole and not method.picks_channels else 0
        )
        held = trained if rule.gradients == "held" and not method.picks_channels else 0
        return Share(saved=saved, held=held, backward=max(saved + gradient, held))

    def _key(self, problem: Problem, index: int, candidate: Candidate) -> tuple[Any, ...]:
        first, around = problem.first, self.around[index] if self.around else -1
        role = "before" if index < first else "first" if index == first else "after"
        detour = role == "after" and around >= 0 and first >= around
        return problem.micro_batch, index, candidate.method, role, detour

    def turn(self, problem: Problem) -> int:
        """Return how many traces of a problem's micro-batch have been learnt from; it grows with what is known."""
        return self.turns.get(problem.micro_batch, 0)

    def learn(self, problem: Problem, chosen: tuple[int, ...], measured: Measured) -> bool:
        """Store the numbers from the trace of a plan. Return whether any of them is new."""
        memory, b = measured.memory, problem.micro_batch
        fresh = not self.around
        self.around = measured.shares.around
        forms = []
        for i, (pick, share) in enumerate(zip(chosen, measured.shares.layers, strict=True)):
            candidate = self.candidates(problem, i)[pick]
            key = self._key(problem, i, candidate)
            fresh |= key not in self.shares
            self.shares.setdefault(key, share)
            forms.append(self.form(problem, i, candidate))
        before = max(self.before.get(b, 0), measured.shares.before)
        fresh |= before != self.before.get(b, 0) or self.flash is None
        self.before[b] = before
        flash = memory.flash_bytes - sum(one.flash for one in forms)
        other = memory.static_bytes - sum(one.static for one in forms)
        # The least of all traces: too much here would refuse plans that fit.
        self.other = other if self.flash is None else min(other, self.other)
        self.flash = flash if self.flash is None else min(flash, self.flash)
        if self.smallest is None or memory.ram_bytes < self.smallest.ram_bytes:
            self.smallest = memory
        self.turns[b] = self.turn(problem) + 1
        return fresh
