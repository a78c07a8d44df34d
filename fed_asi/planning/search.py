"""The search for a plan: the form in which each layer's input is kept, and one micro-batch, within a byte budget.

The choice is exact (knapsack.py) for each micro-batch and each first trained layer, because the bytes that no
form avoids (masks, pooled features, the loss) depend on both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fed_asi.errors import BudgetError, ConfigError
from fed_asi.methods import Method
from fed_asi.methods.family import Asked
from fed_asi.planning.bench import Bench
from fed_asi.planning.knapsack import UNLIMITED_BYTES, Choices, Knapsack, Solution, smallest_bytes
from fed_asi.planning.plan import FLOOR, GRADIENT, Plan
from fed_asi.planning.profile import LayerProfile, Profile
from fed_asi.planning.question import Options, Question, admitted_micro_batches, ask
from fed_asi.planning.whole_device import DevicePlanner, best_of
from fed_asi.planning.within import Within
from fed_asi.units import format_bytes, parse_bytes, told_apart


@dataclass(frozen=True, slots=True)
class Problem:
    """The knapsack of one micro-batch and one first trained layer."""

    question: Question
    micro_batch: int
    first: int
    floor: int
    frozen_value: float
    knapsack: Knapsack
    smallest: int


def plan(
    profile: Profile,
    budget: str | int | None = None,
    *,
    ram: str | int | None = None,
    flash: str | int | None = None,
    reserve: str | int | None = None,
    bench: Bench | Sequence[Bench] | None = None,
    micro_batch: int | None = None,
    methods: Asked | Sequence[Asked] | None = None,
    objective: str | None = None,
    layers: str | Sequence[str] | None = None,
    count: str = "saved",
    selection: str = "exact",
    centered: bool | None = True,
    update: str = "step",
    momentum: bool = False,
    copies: int = 0,
) -> Plan:
    """Return the plan with the highest objective within the budget; exact.

    budget: bytes, text such as "256 KiB", or None for unlimited.
    ram, flash: limits of the whole device, which count every byte of its step; reserve: part of the RAM, for the
    program. bench: from `fed_asi.device_bench`, traces the steps; of several benches, the best plan on any of
    them is taken.
    micro_batch: fixes it; by default the best one is chosen, and of equals the largest, which is the fastest.
    methods: those that may be used, such as ("asi",), ("hosvd(epsilon=0.7)",) or (HOSVD(0.7),), of those that
        the profile was made with. centered: whether forms that subtract a fixed mean may be used.
    objective: "captured" (centred gradient energy, the default), "perplexity" (the papers'), "relative-error".
    layers: None for any subset, "last 4" for the last 4 convolutions, or names; all of these are trained.
    count: what the budget covers: "saved" (all that is alive between forward and backward), "published"
        (the papers' count), "training" (saved, gradients and optimizer state).
    selection: "published" for the papers' epsilon grid, solved exactly.
    update: when weights move: "step"; "micro-batch", after every backward, so that gradients need no accumulators;
        "layer", within the backward, so that only the largest gradient that is whole at one time counts. copies:
        further copies of each trained parameter, held for a strategy, that "training" counts.
    Raises BudgetError if the smallest plan exceeds the budget; ConfigError or ProfileError for unknown arguments.
    """
    if ram is not None or flash is not None:
        _check_whole(bench, count)
        asked: dict[str, Any] = {"methods": methods, "objective": objective, "layers": layers}
        asked |= {"selection": selection, "centered": centered}
        benches = [bench] if isinstance(bench, Bench) else bench or ()
        planners = [DevicePlanner(profile, one, **asked) for one in benches]
        return best_of(planners, Within.of(ram, flash, budget, reserve), micro_batch).plan
    options = Options(methods, objective, layers, count, selection, centered, update, momentum, copies)
    question = ask(profile, options)
    budget_bytes = parse_bytes(budget)
    limit = UNLIMITED_BYTES if budget_bytes is None else budget_bytes
    problems = all_problems(question, admitted_micro_batches(profile, micro_batch))
    best = _search(problems, limit)
    if best is None:
        raise below_smallest(problems, limit)
    return assemble(budget_bytes, *best)


def _check_whole(bench: object, count: str) -> None:
    """Raise ConfigError if the memory of the whole device cannot be counted."""
    if not bench:
        raise ConfigError(
            "ram and flash count the whole step, which has to be traced: "
            "give bench=fed_asi.device_bench(model, x, y, trained)"
        )
    if count != "saved":
        raise ConfigError(f"count {count!r}: needs a budget alone, as ram and flash count the whole step")


def smallest_plan_bytes(profile: Profile, micro_batch: int | None = None, **options: Any) -> int:
    """Return the bytes of the smallest plan; `options` are those of `plan`."""
    question = ask(profile, Options(**options))
    return min(p.smallest for p in all_problems(question, admitted_micro_batches(profile, micro_batch)))


def all_problems(question: Question, micro_batches: Sequence[int]) -> list[Problem]:
    """Return the knapsack of each micro-batch, first trained layer and largest gradient."""
    return [problem for one in question.capped() for problem in _problems(one, micro_batches)]


def _problems(question: Question, micro_batches: Sequence[int]) -> Iterator[Problem]:
    layers = question.profile.layers
    firsts = [i for i, layer in enumerate(layers) if layer.name in question.allowed or layer.head]
    must = [i for i, layer in enumerate(layers) if layer.name in question.forced or layer.head]
    for micro_batch in filter(question.can_be_met, micro_batches):
        choices = [_choices(question, layer, micro_batch) for layer in layers]
        whole = Knapsack(choices)
        frozen = np.cumsum([0.0, *(float(c.values[0]) for c in choices)])
        for first in (i for i in firsts if i <= must[0]):
            floor = question.floor(micro_batch, first)
            smallest = floor + smallest_bytes(choices[first:])
            yield Problem(
                question, micro_batch, first, floor, float(frozen[first]), whole.tail(first), smallest
            )


def _choices(question: Question, layer: LayerProfile, micro_batch: int) -> Choices:
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


def _search(problems: Sequence[Problem], limit: int) -> tuple[Problem, Solution] | None:
    """Return the best problem and its solution, most promising bound first; hopeless problems are not solved."""
    bounds = [p.frozen_value + p.knapsack.bound(limit - p.floor) for p in problems]
    best: tuple[Problem, Solution] | None = None
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


def assemble(budget_bytes: int | None, problem: Problem, solution: Solution) -> Plan:
    """Return a problem's solution as a plan."""
    question = problem.question
    layers = question.profile.layers[problem.first :]
    picked = [
        (layer, question.candidates(layer, problem.micro_batch)[index])
        for layer, index in zip(layers, solution.chosen, strict=True)
    ]
    trained = [(layer, c) for layer, c in picked if c.method.trains_bias]
    gradient = {} if question.largest_gradient is None else {GRADIENT: question.largest_gradient}
    rest = {FLOOR: problem.floor - sum(gradient.values()), **gradient}
    return Plan(
        fingerprint=question.profile.fingerprint,
        budget_bytes=budget_bytes,
        planned_bytes=problem.floor + solution.bytes,
        micro_batch=problem.micro_batch,
        methods={layer.name: c.method for layer, c in trained},
        objective=question.objective,
        value=problem.frozen_value + solution.value,
        count=question.count,
        layer_bytes={layer.name: question.bytes(layer, c) for layer, c in trained} | rest,
        means={layer.name: layer.mean for layer, c in trained if c.method.centers},
        energies={layer.name: layer.channel_energies for layer, c in trained if c.method.picks_channels},
        bases={one.name: one.bases[str(c.method)] for one, c in trained if str(c.method) in one.bases},
        notes=tuple(_notes(c.method for _, c in trained)),
    )


def _notes(methods: Iterator[Method]) -> Iterator[str]:
    """Yield a note on forms whose planned bytes a step may exceed."""
    loose = sorted({m.kind for m in methods if not m.sized})
    if loose:
        yield (
            f"bytes of {' and '.join(loose)} are those of the calibration batch; "
            "their ranks depend on the data, and a step may keep more"
        )


def below_smallest(problems: Sequence[Problem], limit: int) -> BudgetError:
    """Return the error for a budget below the smallest plan."""
    problem = min(problems, key=lambda p: p.smallest)
    question = problem.question
    layers = question.profile.layers[problem.first :]
    smallest = [(layer, question.smallest(layer, problem.micro_batch)) for layer in layers]
    sizes = {layer.name: question.bytes(layer, c) for layer, c in smallest}
    largest_gradient = question.largest_gradient or 0
    sizes["masks, pooled features and loss"] = problem.floor - largest_gradient
    if largest_gradient:
        sizes["the largest layer's gradient"] = largest_gradient
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:3]
    named = ", ".join(f"{name} {format_bytes(size)}" for name, size in largest)
    copies = sum(question.strategy_bytes(layer, c) for layer, c in smallest)
    held = f" {format_bytes(copies)} of it are held by strategy and codec." if copies else ""
    given, needed = told_apart(limit, problem.smallest)
    return BudgetError(
        f"budget {given} is below the smallest plan, {needed} "
        f"(every layer in its smallest form, micro-batch {problem.micro_batch}). Largest: {named}.{held} "
        "Raise the budget, lower the micro-batch, or train fewer layers."
    )
