"""What simpler methods, other budgets and schedules reach with the same profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fed_asi.errors import BudgetError, ConfigError
from fed_asi.methods import Method
from fed_asi.planning.columns import columns
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import Candidate, LayerProfile, Profile
from fed_asi.planning.search import plan
from fed_asi.units import format_bytes

RIVALS: dict[str, dict[str, Any]] = {
    "exact, micro-batches": {"methods": ("vanilla", "mean")},
    "ASI alone": {"methods": ("asi",)},
    "bias only": {"methods": ("bias",)},
    "head only": {"methods": ("vanilla",), "layers": "last 0"},
}


_BETTER = 0.01  # of the unlimited plan's value: a smaller gain is not worth another budget


def candidate_of(layer: LayerProfile, micro_batch: int, method: Method) -> Candidate | None:
    """Return the candidate for a form of a layer, from calibration; None if it was not tried."""
    return next((c for c in layer.candidates[micro_batch] if c.method == method), None)


def captured_share(chosen: Plan, profile: Profile) -> float:
    """Return the share, at most 1, of the profiled layers' centred gradient energy that the plan captures."""
    total = sum(layer.centered_energy + layer.bias_energy for layer in profile.layers)
    captured = 0.0
    for name, method in chosen.methods.items():
        layer = profile.layer(name)
        found = candidate_of(layer, chosen.micro_batch, method) if method.trains_weight else None
        captured += (layer.bias_energy if method.trains_bias else 0.0) + (found.captured if found else 0.0)
    return captured / total if total else 0.0


def rivals_table(profile: Profile, budget: int | None, ours: Plan, width: int | None = None) -> str:
    """Return a table of what simpler methods reach within the same bytes. width: see `columns`.

    Its columns are the share of gradient captured, the bytes, the micro-batch and the layers.
    """
    rows: list[tuple[str, ...]] = [
        ("at the same bytes", "gradient captured", "bytes", "micro-batch", "layers")
    ]
    rows.append(("this plan", *_reached(ours, profile)))
    for name, options in RIVALS.items():
        try:
            rows.append((name, *_reached(plan(profile, budget, **options), profile)))
        except BudgetError as error:
            rows.append((name, "does not fit: " + str(error).split(". ")[0], "", "", ""))
        except ConfigError:
            rows.append((name, "not in this profile", "", "", ""))
    return columns(rows, width)


def _reached(chosen: Plan, profile: Profile) -> tuple[str, str, str, str]:
    share = captured_share(chosen, profile)
    return (
        f"{share:.1%}",
        format_bytes(chosen.planned_bytes),
        str(chosen.micro_batch),
        str(len(chosen.methods)),
    )


def next_better(profile: Profile, ours: Plan, **options: Any) -> Plan | None:
    """Return the plan of the smallest budget that adds 1 % of the unlimited plan's value; None if no budget does.

    options: those with which `ours` was planned.
    """
    most = plan(profile, None, **options)
    wanted = ours.value + _BETTER * abs(most.value)
    if most.value < wanted:
        return None
    low, high = ours.planned_bytes, most.planned_bytes
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if plan(profile, middle, **options).value >= wanted else (middle, high)
    return plan(profile, high, **options)


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One entry of a schedule: the plan for a budget from a round on, or the cause if there is none."""

    round: int
    budget_bytes: int | None  # None: unlimited
    plan: Plan | None
    cause: str = ""


def schedule(profile: Profile, changes: Sequence[tuple[int, int | None]], **options: Any) -> list[Scheduled]:
    """Return the plan of each budget in a schedule.

    changes: (first round, budget in bytes or None), rounds ascending. options: those of `plan`.
    """
    found = []
    for round, budget in changes:
        try:
            found.append(Scheduled(round, budget, plan(profile, budget, **options)))
        except BudgetError as error:
            found.append(Scheduled(round, budget, None, str(error).partition(" (")[0]))
    return found


def schedule_table(profile: Profile, schedule: Sequence[Scheduled], width: int | None = None) -> str:
    """Return a table with a line per change of the budget, with or without a plan. width: see `columns`."""
    rows = [
        ("from round", "budget", "planned", "micro-batch", "layers", "captured", "kept otherwise than before")
    ]
    before: Plan | None = None
    for one in schedule:
        when = str(one.round), format_bytes(one.budget_bytes)
        if one.plan is None:
            rows.append((*when, "none", "-", "-", "-", one.cause))
            continue
        size, share = format_bytes(one.plan.planned_bytes), f"{captured_share(one.plan, profile):.1%}"
        how = str(one.plan.micro_batch), str(len(one.plan.trained)), share
        rows.append((*when, size, *how, _changed(before, one.plan)))
        before = one.plan
    return columns(rows, width)


def _changed(before: Plan | None, chosen: Plan) -> str:
    if before is None:
        return "-"
    names = {**before.methods, **chosen.methods}
    count = sum(before.methods.get(name) != chosen.methods.get(name) for name in names)
    return f"{count} of {len(names)} layers"
