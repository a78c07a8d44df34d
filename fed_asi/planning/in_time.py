"""Plans with limits on time and energy: the best one, the quickest, or the one with the most gradient per second.

As in search.py the choice is made for each micro-batch and each first trained layer. With these fixed, the cost of
each form in device time is known (device_round.py), and the choice is exact (least.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fed_asi.errors import BudgetError, ConfigError, SlowPlanError
from fed_asi.fleets.clock import PARTS, Spent
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.knapsack import Solution
from fed_asi.planning.least import SLACK, Rows
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.question import Options, Question, admitted_micro_batches, ask
from fed_asi.planning.search import all_problems, assemble, below_smallest
from fed_asi.planning.timed_problem import BYTES, LOST, Timed, timed
from fed_asi.planning.wishes import MACS, SECONDS, Wishes, check_known
from fed_asi.units import format_bytes, parse_bytes

EQUAL = 0.001  # of a plan's worth: a plan that is worth less by no more than this counts as equal
_TIE = 1e-9
_MOST_STEPS = 50  # of Dinkelbach's method, which needs about five
_ADVICE = {
    "download": "A faster link down or a smaller network shortens it.",
    "trunk": "Fewer images, a lower resolution, a larger micro-batch or a faster device shortens it.",
    "step": "Fewer trained layers, fewer epochs, a larger budget or a faster device shortens it.",
    "judging": "A smaller data.holdout shortens it.",
    "upload": "A codec, fewer trained layers or a faster link up shortens it.",
}


@dataclass(frozen=True, slots=True)
class TimedPlan:
    """A plan and the cost of a round under it. spent: by the clock, None without one. macs: multiply-accumulates."""

    plan: Plan
    spent: Spent | None
    macs: int


def plan_in_time(
    profile: Profile,
    budget: str | int | None,
    round: DeviceRound,
    wishes: Wishes,
    *,
    micro_batch: int | None = None,
    **options: Any,
) -> TimedPlan:
    """Return the best plan whose bytes, seconds and joules are within their limits; exact.

    round: what the device does in a round. options: those of `plan`; an objective of RATES goes into `wishes`.
    Raises BudgetError if no plan is within all limits, naming the one that binds, and ConfigError if seconds or joules
    are asked of a device whose rates or power are not known.
    """
    asked = Asked.of(profile, round, wishes, Options(**options), admitted_micro_batches(profile, micro_batch))
    return asked.answer(parse_bytes(budget))


@dataclass(frozen=True, slots=True)
class Found:
    """A choice of forms: its problem, the index of each layer's form, and the sum of each row."""

    timed: Timed
    picks: tuple[int, ...]
    sums: Rows


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked question with limits on time. units: those of the rows behind bytes and lost worth."""

    question: Question
    round: DeviceRound
    wishes: Wishes
    units: tuple[str, ...]
    problems: tuple[Timed, ...]

    @classmethod
    def of(
        cls, profile: Profile, round: DeviceRound, wishes: Wishes, options: Options, sizes: Sequence[int]
    ) -> Asked:
        """Return the question, checked. Raises ConfigError with what is wrong."""
        question = ask(profile, options)
        if wishes.rate and question.objective != "captured":
            raise ConfigError(
                f"objective {wishes.objective!r} is of what is captured, not {question.objective}"
            )
        pace = SECONDS if round.has_clock else MACS
        units = tuple(dict.fromkeys([pace, *wishes.limits, *([wishes.rate] if wishes.rate else [])]))
        check_known(round, wishes)
        gauges = [round.gauge(unit) for unit in units]
        problems = (timed(problem, round, gauges) for problem in all_problems(question, sizes))
        return cls(question, round, wishes, units, tuple(problems))

    def answer(self, budget_bytes: int | None) -> TimedPlan:
        """Return the best plan. Raises BudgetError if no plan is within the limits."""
        upper = self.upper(budget_bytes)
        found = self.highest_rate(upper) if self.wishes.rate else self.worthiest(upper)
        if found is None:
            raise self.too_small(budget_bytes, upper)
        if self.wishes.quicker and not self.wishes.rate:
            found = self.quicker(found, upper)
        return self.planned(budget_bytes, found)

    def upper(self, budget_bytes: int | None) -> Rows:
        """Return the upper limit of each row's sum."""
        limits = self.wishes.limits
        budget = np.inf if budget_bytes is None else float(budget_bytes)
        return np.array([budget, np.inf, *(limits.get(unit, np.inf) for unit in self.units)])

    def goal(self, row: int, price: float = 0.0, of: int = 0) -> list[float]:
        """Return a goal for `least`: one row, plus a second row `of` times a price."""
        found = [0.0] * (2 + len(self.units))
        found[row] = 1.0
        found[of] += price
        return found

    def row(self, unit: str) -> int:
        """Return the index of a unit's row."""
        return 2 + self.units.index(unit)

    def worthiest(self, upper: Rows) -> Found | None:
        """Return the choice with the highest worth; None if none is within the limits."""
        free = np.full(len(upper), np.inf)
        free[BYTES] = upper[BYTES]
        found = self.least(self.goal(LOST), free)
        if found is None or bool((found.sums <= upper).all()):
            return found  # no other limit binds
        return self.least(self.goal(LOST), upper)

    def quicker(self, found: Found, upper: Rows) -> Found:
        """Return the quickest choice that is worth as much as `found`, to within a thousandth."""
        return self.quickest(equal(-float(found.sums[LOST])), upper) or found

    def quickest(self, worth: float, upper: Rows) -> Found | None:
        """Return the quickest choice with at least this worth, and among equally quick ones that of fewest bytes."""
        enough = upper.copy()
        enough[LOST] = -worth
        found = self.least(self.goal(2), enough)
        if found is None:
            return None
        enough[2] = min(enough[2], found.sums[2])
        picks = found.timed.best(self.goal(BYTES), enough)
        return found if picks is None else Found(found.timed, picks, found.timed.sums(picks))

    def highest_rate(self, upper: Rows) -> Found | None:
        """Return the choice with the most worth per second or per joule.

        Source: Dinkelbach 1967, "On nonlinear fractional programming": a choice has the highest rate when no other has
        worth - rate x cost above 0.
        """
        at = self.row(self.wishes.rate or SECONDS)
        best = self.worthiest(upper)
        for _ in range(_MOST_STEPS):
            if best is None or best.sums[LOST] >= 0.0:
                return best
            rate = -float(best.sums[LOST]) / float(best.sums[at])
            found = self.least(self.goal(LOST, rate, at), upper)
            if found is None or -float(found.sums[LOST]) / float(found.sums[at]) <= rate * (1 + _TIE):
                return best
            best = found
        return best

    def least(self, goal: Sequence[float], upper: Rows) -> Found | None:
        """Return the cheapest choice over all problems; among equals, one of the largest micro-batch."""
        bounds = [one.bound(goal, upper) for one in self.problems]
        order = sorted(
            range(len(bounds)), key=lambda i: (bounds[i], -self.problems[i].problem.micro_batch, i)
        )
        best, cost = None, math.inf
        for index in order:
            tie = _TIE * abs(cost) if best else 0.0
            if bounds[index] >= cost - tie:
                break
            timed = self.problems[index]
            picks = timed.best(goal, upper)
            if picks is None:
                continue
            sums = timed.sums(picks)
            if float(np.dot(goal, sums)) < cost - tie:
                best, cost = Found(timed, picks, sums), float(np.dot(goal, sums))
        return best

    def planned(self, budget_bytes: int | None, found: Found) -> TimedPlan:
        """Return a choice as a plan, with its cost by the clock."""
        problem, size = found.timed.problem, int(found.sums[BYTES]) - found.timed.problem.floor
        worth = -float(found.sums[LOST])
        solution = Solution(found.picks, size, worth - problem.frozen_value)
        made = assemble(budget_bytes, problem, solution)
        if self.wishes.rate and self.wishes.objective:
            rate = worth / float(found.sums[self.row(self.wishes.rate)])
            made = replace(made, objective=self.wishes.objective, value=rate)
        return timed_plan(made, self.round)

    def too_small(self, budget_bytes: int | None, upper: Rows) -> BudgetError:
        """Return the error for limits that no plan meets, naming the one that binds."""
        smallest = min(one.problem.smallest for one in self.problems)
        if upper[BYTES] < smallest:
            return below_smallest([one.problem for one in self.problems], int(upper[BYTES]))
        free = np.full(len(upper), np.inf)
        free[BYTES] = upper[BYTES]
        for unit, most in self.wishes.limits.items():
            found = self.least(self.goal(self.row(unit)), free)
            if found is not None and found.sums[self.row(unit)] > most * (1 + SLACK):
                return _too_long(unit, most, self.planned(budget_bytes, found))
        limits = " and ".join(f"{most:g} {unit}" for unit, most in self.wishes.limits.items())
        return SlowPlanError(
            f"no plan is within {format_bytes(budget_bytes)}, {limits} at one time. Raise one of them."
        )


def equal(worth: float) -> float:
    """Return the least worth that still counts as equal to this one."""
    return worth - EQUAL * abs(worth)


def timed_plan(made: Plan, round: DeviceRound) -> TimedPlan:
    """Return a plan with the cost of a round under it."""
    task = round.task(made.methods, made.micro_batch)
    known = round.spent(made.methods, made.micro_batch) if round.has_clock else None
    return TimedPlan(made, known, sum(work.macs for work in (task.trunk, task.step, task.judging)))


def _too_long(unit: str, most: float, quickest: TimedPlan) -> SlowPlanError:
    """Return the error for a limit in seconds or joules that no plan meets. quickest: the plan that needs least."""
    spent = quickest.spent
    parts = dict(_parts(spent, unit)) if spent else {}
    whole, longest = sum(parts.values()), max(parts, key=lambda part: parts[part])
    named = ", ".join(f"{part} {taken:.3g}" for part, taken in parts.items() if taken > 0.0)
    return SlowPlanError(
        f"max_{unit} {most:g} is below the plan that takes least, {whole:.4g} {unit} (micro-batch "
        f"{quickest.plan.micro_batch}): {named}. Most of it is the {longest}. {_ADVICE[longest]} Or raise max_{unit}."
    )


def _parts(spent: Spent, unit: str) -> Iterator[tuple[str, float]]:
    for part in PARTS:
        yield part, float(getattr(spent, f"{part}_{unit}") or 0.0)
