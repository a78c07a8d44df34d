"""The best plan within a device's RAM and flash, of one planner or of several: device_search.py finds it.

When weights move and how what is only read is stored are what a `Bench` is made for: where they may be chosen, there is
a planner for each, and `best_of` takes the best of their plans.
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

WORTH_IT = 0.01  # of a plan's value: what a coarser format has to add
_TIE = 1e-9  # of a value: sums in another order differ by less


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
        known = KnownForms(self.question, self.bench)
        return Search(known, self.bench, within, sizes, self._measured).best()


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
