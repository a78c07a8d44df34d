"""The best plan within a device's RAM and flash, from one planner or several; device_search.py finds it.

A `Bench` is made for one update rule and one storage format. If these may be chosen, there is a planner for each
combination, and `best_of` takes the best of their plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fed_asi.errors import BudgetError, ConfigError
from fed_asi.memory.stored import FORMATS, Format
from fed_asi.planning.bench import Bench, Measured
from fed_asi.planning.device_search import Chosen, DevicePlan, Search
from fed_asi.planning.forms_known import KnownForms
from fed_asi.planning.profile import Profile
from fed_asi.planning.question import Options, Question, admitted_micro_batches, ask
from fed_asi.planning.within import Within

WORTH_IT = 0.01  # of a plan's value: the gain for which a coarser format is taken
_TIE = 1e-9  # of a value: the order of a sum changes it by less


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

    ram, flash, budget: bytes or text such as "320 KiB"; None for no limit. reserve: part of the RAM, for the runtime.
    options: those of `plan` except `count`, which is "saved", and `update`, which is the bench's.
    Raises BudgetError if no plan fits, naming the phase that needs too much; ConfigError for methods whose bytes depend
    on the data and for everything that `plan` refuses.
    """
    limits = Within.of(ram, flash, budget, reserve)
    return DevicePlanner(profile, bench, **options).best(limits, micro_batch)


class DevicePlanner:
    """Plans one network for devices with any limits; traces made for one device are reused for the next."""

    def __init__(self, profile: Profile, bench: Bench, **options: Any) -> None:
        update = "layer" if bench.rule(profile.micro_batches[0]).mover is not None else "step"
        self.question = ask(profile, Options(**options, update=update))
        _check_sized(self.question)
        self.bench = bench
        self._measured: dict[Chosen, Measured] = {}

    def best(self, within: Within, micro_batch: int | None = None) -> DevicePlan:
        """Return the plan of highest value within these limits. Raises like `plan_device`."""
        sizes = admitted_micro_batches(self.question.profile, micro_batch)
        # Only traces are kept: earlier questions must not decide between plans of equal value.
        known = KnownForms(self.question, self.bench)
        return Search(known, self.bench, within, sizes, self._measured).best()


def best_of(planners: Sequence[DevicePlanner], within: Within, micro_batch: int | None = None) -> DevicePlan:
    """Return the best plan of several planners, which differ in storage format or update.

    Within one format it is the plan of highest value, and of equals the first planner's. A coarser format must be worth
    it, see `finest`. Raises BudgetError, the last planner's, if none has a plan.
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
    """Return the index of the finest format that is nearly as good as the best one.

    values: of the best plan in each format, the finest first. A coarser format must add 1 % of the value.
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
