"""A plan: for every layer the form in which its input is kept, and one micro-batch, within a byte budget.

The choice is exact (fed_asi.knapsack) for each micro-batch and each first trained layer, because the bytes
that no form
avoids (masks, pooled features, the loss) depend on both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from fed_asi.errors import BudgetError, ConfigError, ProfileError, nearest
from fed_asi.knapsack import UNLIMITED_BYTES, Choices, Knapsack, Solution, smallest_bytes
from fed_asi.methods import BiasOnly, Frozen, Method, Vanilla
from fed_asi.plans import FLOOR, Plan
from fed_asi.profiles import Candidate, LayerProfile, Profile
from fed_asi.trials import DEFAULT_METHODS, kind_name, method_problems
from fed_asi.units import format_bytes, parse_bytes

OBJECTIVES = ("captured", "perplexity", "relative-error")
COUNTS = ("saved", "published", "training")
UPDATES = ("step", "micro-batch")
SELECTIONS = ("exact", "published")
DEFAULT_OBJECTIVE = "captured"


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `plan`, as it explains them."""

    methods: Sequence[str] | None = None
    objective: str | None = None
    layers: str | Sequence[str] | None = None
    count: str = "saved"
    selection: str = "exact"
    centered: bool | None = True
    update: str = "step"
    momentum: bool = False


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked of a profile, checked: the arguments of `plan` in the form the search needs."""

    profile: Profile
    forced: frozenset[str]
    allowed: frozenset[str]
    methods: frozenset[str]
    objective: str
    count: str
    selection: str
    centered: bool | None
    accumulators: bool
    momentum: bool

    def candidates(self, layer: LayerProfile, micro_batch: int) -> list[Candidate]:
        """Return every form this layer may take; the first is the one of fewest bytes."""
        found: list[Candidate] = []
        if layer.name not in self.forced and not layer.head:
            found.append(Candidate(Frozen(), 0, 0, layer.weight_norm, 0.0))
        if layer.name in self.allowed or layer.head:
            if "bias" in self.methods and layer.bias_parameters:
                found.append(Candidate(BiasOnly(), 0, 0, layer.weight_norm, 0.0))
            forms = {c.method for c in layer.candidates[micro_batch] if c.epsilon is None}
            found += [c for c in layer.candidates[micro_batch] if self._admits(layer, c, forms)]
        return found

    def _admits(self, layer: LayerProfile, candidate: Candidate, forms: Set[Method]) -> bool:
        method = candidate.method
        if self.selection == "published":
            return method == Vanilla() if layer.head else candidate.epsilon is not None
        if candidate.epsilon is not None and any(form.kind == method.kind for form in forms):
            return False  # the papers' grid only stands in where a profile holds nothing better
        if self.centered is False and getattr(method, "centered", False):
            return False
        if self.centered and not getattr(method, "centered", True) and _centered(method) in forms:
            return False
        # The classifier may always be kept whole: a plan must be able to train it.
        return method.kind in self.methods or (layer.head and method.kind == "vanilla")

    def value(self, layer: LayerProfile, candidate: Candidate) -> float:
        """Return what this form is worth: the objective's share of this layer."""
        if self.objective == "perplexity":
            return -candidate.error
        if self.objective == "relative-error":
            return -candidate.error / layer.weight_norm if layer.weight_norm else 0.0
        return candidate.captured + (layer.bias_energy if candidate.method.trains_bias else 0.0)

    def bytes(self, layer: LayerProfile, candidate: Candidate) -> int:
        """Return what this form costs in the sense of `count`."""
        if self.count == "published":
            return 0 if layer.head else candidate.published_bytes
        if self.count == "saved":
            return candidate.saved_bytes
        method = candidate.method
        trained = layer.weight_parameters * method.trains_weight + layer.bias_parameters * method.trains_bias
        return candidate.saved_bytes + 4 * trained * (int(self.accumulators) + int(self.momentum))

    def floor(self, micro_batch: int, first: int) -> int:
        """Return the bytes that no form avoids when layer `first` is the first trained one."""
        return 0 if self.count == "published" else self.profile.floors[micro_batch][first]


@lru_cache(maxsize=4096)
def _centered(method: Method) -> Method:
    """Return the same form that subtracts the fixed mean first."""
    return Method.from_dict(method.to_dict() | {"centered": True})


@dataclass(frozen=True, slots=True)
class _Problem:
    """The knapsack of one micro-batch and one first trained layer."""

    micro_batch: int
    first: int
    floor: int
    frozen_value: float
    knapsack: Knapsack
    smallest: int


def plan(
    profile: Profile,
    budget: str | int | None,
    *,
    micro_batch: int | None = None,
    methods: Sequence[str] | None = None,
    objective: str | None = None,
    layers: str | Sequence[str] | None = None,
    count: str = "saved",
    selection: str = "exact",
    centered: bool | None = True,
    update: str = "step",
    momentum: bool = False,
) -> Plan:
    """Return the plan of highest objective whose bytes are within the budget; exact.

    budget: bytes, text such as "256 KiB", or None for unlimited.
    micro_batch: pins it; otherwise the best one is chosen, and among equals the largest, which is the
        fastest.
    methods: kinds that may be used, such as ("asi",) or ("hosvd(epsilon=0.7)",), of those the profile was
        made with. centered: whether forms that subtract a fixed mean
        may be used.
    objective: "captured" (centred gradient energy, the default), "perplexity" (the papers'),
        "relative-error".
    layers: None for any subset, "last 4" for the last 4 convolutions, or names; those named are all trained.
    count: what the budget covers: "saved" (all that is alive between forward and backward), "published"
        (the papers'
        count), "training" (saved, gradients and optimizer state).
    selection: "published" for the papers' epsilon grid, solved exactly.
    update: "step", or "micro-batch" where weights are updated inside every backward and gradients need no
        buffers.
    Raises BudgetError when the smallest plan is above the budget; ConfigError, ProfileError for what is
    not known.
    """
    options = Options(methods, objective, layers, count, selection, centered, update, momentum)
    question = _ask(profile, options)
    budget_bytes = parse_bytes(budget)
    limit = UNLIMITED_BYTES if budget_bytes is None else budget_bytes
    problems = list(_problems(question, _micro_batches(profile, micro_batch)))
    best = _search(problems, limit)
    if best is None:
        raise _below_smallest(question, problems, limit)
    return _assemble(question, budget_bytes, *best)


def smallest_plan_bytes(profile: Profile, micro_batch: int | None = None, **options: Any) -> int:
    """Return the bytes of the smallest plan; `options` are those of `plan`."""
    question = _ask(profile, Options(**options))
    return min(p.smallest for p in _problems(question, _micro_batches(profile, micro_batch)))


def _ask(profile: Profile, options: Options) -> _Question:
    methods, objective, selection = options.methods, options.objective, options.selection
    kinds = DEFAULT_METHODS if methods is None else (methods,) if isinstance(methods, str) else tuple(methods)
    objective = objective or ("perplexity" if selection == "published" else DEFAULT_OBJECTIVE)
    choices: list[tuple[str, str, tuple[str, ...]]]
    choices = [("objective", objective, OBJECTIVES), ("count", options.count, COUNTS)]
    choices += [("selection", selection, SELECTIONS), ("update", options.update, UPDATES)]
    unknown = [
        f"{what} {value!r} is not known; {nearest(value, known)}"
        for what, value, known in choices
        if value not in known
    ]
    unknown += method_problems(kinds)
    if unknown:
        raise ConfigError(unknown)
    if methods is not None:
        _check_some_form(profile, frozenset(map(kind_name, kinds)))
    forced = _forced(profile, options.layers)
    allowed = forced or frozenset(layer.name for layer in profile.layers)
    return _Question(
        profile,
        forced,
        allowed,
        frozenset(map(kind_name, kinds)),
        objective,
        options.count,
        selection,
        options.centered,
        options.update == "step",
        options.momentum,
    )


def _check_some_form(profile: Profile, kinds: frozenset[str]) -> None:
    """Raise ConfigError when no layer but the head has any form of the kinds asked for."""
    body = [layer for layer in profile.layers if not layer.head]
    held = {c.method.kind for layer in body for found in layer.candidates.values() for c in found}
    if any(layer.bias_parameters for layer in body):
        held.add("bias")
    if body and not held & kinds:
        asked = ", ".join(sorted(kinds))
        raise ConfigError(
            f"no layer of this profile can be kept as {asked}, only as {', '.join(sorted(held))}; "
            f"calibrate again with methods that name {asked}, which also says of layers why they cannot"
        )


def _forced(profile: Profile, layers: str | Sequence[str] | None) -> frozenset[str]:
    """Return the layers that must be trained; empty when any subset will do."""
    if layers is None:
        return frozenset()
    in_order = sorted(profile.layers, key=lambda layer: layer.position)
    body = [layer.name for layer in in_order if not layer.head]
    if isinstance(layers, str):
        word, _, number = layers.partition(" ")
        if word == "all":
            return frozenset(body)
        if word != "last" or not number.isdigit() or not 0 <= int(number) <= len(body):
            raise ConfigError(
                f'layers {layers!r} is not understood; write "last 4" (at most {len(body)}), "all" or names'
            )
        return frozenset(body[len(body) - int(number) :] or [profile.layers[-1].name])
    names = [layer.name for layer in profile.layers]
    missing = [name for name in layers if name not in names]
    if missing:
        raise ConfigError(
            [f"layer {name!r} is not in the profile; {nearest(name, names)}" for name in missing]
        )
    return frozenset(layers)


def _micro_batches(profile: Profile, pinned: int | None) -> tuple[int, ...]:
    if pinned is None:
        return profile.micro_batches
    if pinned not in profile.floors:
        known = ", ".join(str(b) for b in profile.micro_batches)
        raise ProfileError(
            f"the profile has no candidates for micro-batch {pinned}, only for {known}. Calibrate again."
        )
    return (pinned,)


def _problems(question: _Question, micro_batches: Sequence[int]) -> Iterator[_Problem]:
    layers = question.profile.layers
    firsts = [i for i, layer in enumerate(layers) if layer.name in question.allowed or layer.head]
    must = [i for i, layer in enumerate(layers) if layer.name in question.forced or layer.head]
    for micro_batch in micro_batches:
        choices = [_choices(question, layer, micro_batch) for layer in layers]
        whole = Knapsack(choices)
        frozen = np.cumsum([0.0, *(float(c.values[0]) for c in choices)])
        for first in (i for i in firsts if i <= must[0]):
            floor = question.floor(micro_batch, first)
            smallest = floor + smallest_bytes(choices[first:])
            yield _Problem(micro_batch, first, floor, float(frozen[first]), whole.tail(first), smallest)


def _choices(question: _Question, layer: LayerProfile, micro_batch: int) -> Choices:
    found = question.candidates(layer, micro_batch)
    if not found:
        kinds = ", ".join(sorted({c.method.kind for c in layer.candidates[micro_batch]}))
        raise ConfigError(
            f"layer {layer.name} can be kept in none of the forms asked for "
            f"({', '.join(sorted(question.methods))}, selection {question.selection}); "
            f"the profile has {kinds or 'none'} for it"
        )
    sizes = np.array([question.bytes(layer, c) for c in found], dtype=np.int64)
    return Choices(sizes, np.array([question.value(layer, c) for c in found]))


def _search(problems: Sequence[_Problem], limit: int) -> tuple[_Problem, Solution] | None:
    """Return the best problem and its solution: most promising bound first, the hopeless never solved."""
    bounds = [p.frozen_value + p.knapsack.bound(limit - p.floor) for p in problems]
    best: tuple[_Problem, Solution] | None = None
    best_key = (-np.inf, 0, 0)
    for index in sorted(range(len(problems)), key=lambda i: -bounds[i]):
        problem = problems[index]
        tie = 1e-9 * max(1.0, abs(best_key[0])) if best else 0.0
        if bounds[index] < best_key[0] - tie or bounds[index] == -np.inf:
            break
        solution = problem.knapsack.solve(limit - problem.floor, best_key[0] - tie - problem.frozen_value)
        if solution is None:
            continue
        value = problem.frozen_value + solution.value
        key = (value, problem.micro_batch, -problem.floor - solution.bytes)
        if (
            best is None
            or value > best_key[0] + tie
            or (value >= best_key[0] - tie and key[1:] > best_key[1:])
        ):
            best, best_key = (problem, solution), key
    return best


def _assemble(question: _Question, budget_bytes: int | None, problem: _Problem, solution: Solution) -> Plan:
    layers = question.profile.layers[problem.first :]
    picked = [
        (layer, question.candidates(layer, problem.micro_batch)[index])
        for layer, index in zip(layers, solution.chosen, strict=True)
    ]
    trained = [(layer, c) for layer, c in picked if c.method.trains_bias]
    return Plan(
        fingerprint=question.profile.fingerprint,
        budget_bytes=budget_bytes,
        planned_bytes=problem.floor + solution.bytes,
        micro_batch=problem.micro_batch,
        methods={layer.name: c.method for layer, c in trained},
        objective=question.objective,
        value=problem.frozen_value + solution.value,
        count=question.count,
        layer_bytes={layer.name: question.bytes(layer, c) for layer, c in trained} | {FLOOR: problem.floor},
        means={layer.name: layer.mean for layer, c in trained if getattr(c.method, "centered", False)},
        notes=tuple(_notes(c.method for _, c in trained)),
    )


def _notes(methods: Iterator[Method]) -> Iterator[str]:
    """Say of which forms the planned bytes are no promise."""
    loose = sorted({m.kind for m in methods if not m.sized})
    if loose:
        yield (
            f"bytes of {' and '.join(loose)} are those of the calibration batch; "
            "their ranks hang on the data, and a step may keep more"
        )


def _below_smallest(question: _Question, problems: Sequence[_Problem], limit: int) -> BudgetError:
    problem = min(problems, key=lambda p: p.smallest)
    sizes = {
        layer.name: min(question.bytes(layer, c) for c in question.candidates(layer, problem.micro_batch))
        for layer in question.profile.layers[problem.first :]
    }
    sizes["masks, pooled features and loss"] = problem.floor
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    named = ", ".join(f"{name} {format_bytes(size)}" for name, size in largest)
    return BudgetError(
        f"budget {format_bytes(limit)} is below the smallest plan, {format_bytes(problem.smallest)} "
        f"(every layer in its smallest form, micro-batch {problem.micro_batch}). Largest: {named}. "
        "Raise the budget, lower the micro-batch, or train fewer layers."
    )
