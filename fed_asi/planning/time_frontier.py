"""Bytes against seconds: how quick a plan of the same worth can be with fewer and with more bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.in_time import EQUAL, Asked, TimedPlan, equal
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.question import Options, admitted_micro_batches
from fed_asi.planning.timed_problem import LOST
from fed_asi.planning.wishes import Wishes

_BELOW, _ABOVE = 3, 10  # halvings and doublings of the plan's bytes
_QUICKER = 0.99  # of the seconds of the row before: a smaller gain is not worth a row


def frontier(profile: Profile, chosen: Plan, round: DeviceRound, **options: Any) -> list[TimedPlan]:
    """Return the quickest plans that are worth as much as `chosen`, within its bytes halved and doubled.

    If no plan within a budget is worth that much, its row is the quickest of the best ones. Plans are sorted by bytes;
    a budget whose plan is neither worth more nor quicker is left out. Limits on seconds and joules do not apply.
    options: those of `plan`.
    """
    sizes = admitted_micro_batches(profile, options.pop("micro_batch", None))
    asked = Asked.of(profile, round, Wishes(), Options(**options), sizes)
    return list(_rows(asked, chosen, _worth(asked, chosen)))


def _rows(asked: Asked, chosen: Plan, worth: float) -> Iterator[TimedPlan]:
    quickest, most = float("inf"), -float("inf")
    for power in range(-_BELOW, _ABOVE + 1):
        budget = int(chosen.planned_bytes * 2.0**power)
        upper = asked.upper(budget)
        best = asked.worthiest(upper)
        if best is None:
            continue
        found = asked.quickest(min(worth, equal(-float(best.sums[LOST]))), upper) or best
        got, cost = -float(found.sums[LOST]), float(found.sums[2])
        if got - most > EQUAL * abs(got) or cost < quickest * _QUICKER:
            yield asked.planned(budget, found)
            quickest, most = cost, max(got, most)


def _worth(asked: Asked, chosen: Plan) -> float:
    """Return a plan's worth by the question's objective, whatever objective it was planned with."""
    question, worth = asked.question, 0.0
    for layer in question.profile.layers:
        method = chosen.methods.get(layer.name)
        found = [c for c in question.candidates(layer, chosen.micro_batch) if c.method == method]
        found = found or [
            c for c in question.candidates(layer, chosen.micro_batch) if not c.method.trains_bias
        ]
        worth += question.value(layer, found[0]) if found else 0.0
    return worth
