"""The plans that a device tries, in order: first its own, then, if that is over budget, those of its fleet's policy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from fed_asi.errors import BudgetError, ConfigError
from fed_asi.fleets import over_budget
from fed_asi.fleets.aggregate import held_copies
from fed_asi.fleets.config import MethodConfig, RunConfig, TrainConfig
from fed_asi.fleets.pace import RATES
from fed_asi.fleets.resources import Resources
from fed_asi.memory.device import DeviceMemory
from fed_asi.methods import Family, Vanilla
from fed_asi.planning import search
from fed_asi.planning.bench import Bench
from fed_asi.planning.device_search import DevicePlan
from fed_asi.planning.plan import Plan, Update
from fed_asi.planning.profile import Profile
from fed_asi.planning.rivals import captured_share
from fed_asi.planning.whole_device import DevicePlanner, best_of
from fed_asi.planning.within import Within

CHECKPOINTED = "planned bytes are those of keeping everything; checkpointing keeps less and computes it again"


Best = Callable[..., Plan]  # of a device's resources, a profile, a budget in bytes and the options of `plan`


def _within_budget(_resources: Resources, profile: Profile, budget_bytes: int | None, **options: Any) -> Plan:
    return search.plan(profile, budget_bytes, **options)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A plan, and the name of the policy that made it; None for the device's own plan."""

    plan: Plan
    policy: str | None = None


def plans_of(
    config: RunConfig,
    profile: Profile,
    benches: Callable[[int, Update], Bench] | None = None,
    where: str = "",
) -> DevicePlans:
    """Return a run's plans from a profile. benches: makes the bench for a batch size and an update.

    where: prefix of the message where there is no plan, such as the resolution in a run that has several.
    """
    copies = held_copies(config.aggregate, config.upload)
    return DevicePlans(profile, config.method, config.train, copies, benches, where)


class DevicePlans:
    """The plans of one run's method, made from one profile. Answers are remembered, as many devices are alike.

    copies: of each trained parameter, held by the run's strategy and codec. benches, where: see `plans_of`.
    """

    def __init__(
        self,
        profile: Profile,
        method: MethodConfig,
        train: TrainConfig,
        copies: int = 0,
        benches: Callable[[int, Update], Bench] | None = None,
        where: str = "",
    ) -> None:
        self._profile, self._method, self._train, self._copies = profile, method, train, copies
        self._benches, self._where = benches, where
        self._made: dict[tuple[int, Update], Bench] = {}
        self._planners: dict[tuple[int, int | None, str], list[DevicePlanner]] = {}
        self._known: dict[tuple[Resources, int | None, str], Plan | BudgetError] = {}
        self._memory: dict[tuple[int, Hashable], DeviceMemory] = {}
        self._best: Best = _within_budget

    @property
    def profile(self) -> Profile:
        """Return the profile that plans are made from."""
        return self._profile

    def replanned(self, profile: Profile) -> DevicePlans:
        """Return plans with the same settings from another profile."""
        return DevicePlans(profile, self._method, self._train, self._copies, self._benches, self._where)

    def timed(self, best: Best) -> DevicePlans:
        """Return plans from the same profile and settings that `best` chooses."""
        found = self.replanned(self._profile)
        found._best = best
        return found

    def too_small_for_copies(self, resources: Resources) -> BudgetError | None:
        """Return the BudgetError if nothing fits only because of the copies of strategy and codec; None otherwise."""
        if self._copies == 0 or self._method.covers != "training":
            return None
        try:
            next(self.attempts(resources))
        except BudgetError as error:
            with contextlib.suppress(BudgetError):
                next(DevicePlans(self._profile, self._method, self._train).attempts(resources))
                return error
        return None

    def first(self, resources: Resources) -> Plan:
        """Return the device's own plan. Raises BudgetError if the budget is below the smallest plan."""
        return self._plan(resources, None, self._method.grid)

    def whole(
        self, resources: Resources, layer_count: int | None = None, selection: str | None = None
    ) -> DevicePlan:
        """Return the plan of a device that sets its RAM or flash, with the memory of its step. Raises BudgetError."""
        planners = self._planners_of(resources.batch_size, layer_count, selection or self._method.grid)
        return best_of(planners, within_of(resources), resources.micro_batch)

    def memory(self, plan: Plan, resources: Resources) -> DeviceMemory | None:
        """Return the memory of a plan's step, for a plan made here for a device that sets its RAM or flash.

        None for any other plan.
        """
        found = self._memory.get((resources.batch_size, step_of(plan))) if resources.whole_device else None
        return None if found is None else replace(found, reserve_bytes=resources.reserve_bytes or 0)

    def attempts(self, resources: Resources) -> Iterator[Attempt]:
        """Yield the plans to try, in order; ask for the next one when the last was over budget.

        No step is tried twice, as it would be over budget again. Raises BudgetError, that of the device's own plan, if
        no plan fits.
        """
        steps: set[Hashable] = set()
        for attempt in self._fitting(resources):
            step = step_of(attempt.plan)
            if step not in steps:
                steps.add(step)
                yield attempt
        if not steps:
            self.first(resources)  # raises the error that says why nothing fits

    def layers_of(self, every: Iterable[Resources]) -> set[str]:
        """Return the layers that a plan for any of these resources trains, whether it is tried first or later."""
        found: set[str] = set()
        for resources in every:
            with contextlib.suppress(BudgetError):
                found.update(layer for attempt in self.attempts(resources) for layer in attempt.plan.trained)
        return found

    def captured(self, plan: Plan) -> dict[str, float]:
        """Return, by weight, the share of centred gradient energy that the plan's form captures, 0 to 1."""
        shares: dict[str, float] = {}
        for layer in self._profile.layers:
            method = plan.methods.get(layer.name)
            if method is None or layer.centered_energy <= 0.0:
                continue
            found = [c for c in layer.candidates.get(plan.micro_batch, ()) if c.method == method]
            captured = found[0].captured / layer.centered_energy if found else 0.0
            shares[f"{layer.name}.weight"] = min(1.0, max(0.0, captured))
        return shares

    def share(self, plan: Plan) -> float:
        """Return the share of the profile's centred gradient energy that the plan captures, all layers together."""
        return min(1.0, max(0.0, captured_share(plan, self._profile)))

    def _fitting(self, resources: Resources) -> Iterator[Attempt]:
        """Yield the device's own plan, then those of the policy, without attempts that have no plan."""
        method, profile = self._method, self._profile
        with contextlib.suppress(BudgetError):
            yield Attempt(self.first(resources))
        body = sum(not layer.head for layer in profile.layers)
        offer = over_budget.Offer(body, profile.micro_batches, method.grid)
        for one in over_budget.tries(method.over_budget, resources, offer):
            with contextlib.suppress(BudgetError):
                yield Attempt(self._plan(one.resources, one.layers, one.grid), method.over_budget)

    def _plan(self, resources: Resources, layer_count: int | None, selection: str) -> Plan:
        key = (resources, layer_count, selection)
        if key not in self._known:
            try:
                self._known[key] = self._search(resources, layer_count, selection)
            except BudgetError as error:
                self._known[key] = error if not self._where else type(error)(f"{self._where}: {error}")
        found = self._known[key]
        if isinstance(found, BudgetError):
            raise found.with_traceback(None)
        return found

    def _search(self, resources: Resources, layer_count: int | None, selection: str) -> Plan:
        method = self._method
        if method.recipe.recomputes:
            # Checkpointing keeps less than any plan says, so the budget is checked against the step itself.
            micro_batch = resources.micro_batch or resources.batch_size
            micro_batch = min(micro_batch, self._profile.micro_batches[-1])
            unlimited = replace(resources, budget_bytes=None, micro_batch=micro_batch)
            kept_whole = self._chosen(unlimited, layer_count, selection)
            return replace(kept_whole, budget_bytes=resources.budget_bytes, notes=(CHECKPOINTED,))
        return self._chosen(resources, layer_count, selection)

    def _chosen(self, resources: Resources, layer_count: int | None, selection: str) -> Plan:
        method = self._method
        if resources.whole_device:
            found = self.whole(resources, layer_count, selection)
            self._memory[resources.batch_size, step_of(found.plan)] = found.memory
            return found.plan
        return self._best(
            resources,
            self._within(resources.batch_size, resources.micro_batch),
            resources.budget_bytes,
            micro_batch=resources.micro_batch,
            count=method.covers,
            **self._options(layer_count, selection),
            update=self._train.updates[0],
            momentum=self._train.momentum > 0,
            copies=self._copies,
        )

    def _options(self, layer_count: int | None, selection: str) -> dict[str, Any]:
        method = self._method
        return {
            "methods": method.families or (Family(Vanilla),),
            "objective": None if method.objective in RATES else method.objective,
            "layers": self._layers(layer_count),
            "selection": selection,
            "centered": method.may_center,
        }

    def _planners_of(self, batch_size: int, layer_count: int | None, selection: str) -> list[DevicePlanner]:
        """Return the planners for devices that set their RAM or flash; planners remember their traces."""
        key = (batch_size, layer_count, selection)
        if key not in self._planners:
            profile = self._within(batch_size, None)
            options = self._options(layer_count, selection)
            benches = [self.bench(batch_size, update) for update in self._train.updates]
            self._planners[key] = [DevicePlanner(profile, bench, **options) for bench in benches]
        return self._planners[key]

    def bench(self, batch_size: int, update: Update | None = None) -> Bench:
        """Return the bench for steps of this batch size. update: None for the first that the run allows."""
        key = (batch_size, update or self._train.updates[0])
        if key not in self._made:
            if self._benches is None:
                raise ConfigError("ram and flash need the network to trace steps of, not a profile alone")
            self._made[key] = self._benches(*key)
        return self._made[key]

    def _layers(self, count: int | None) -> str | None:
        if count is not None:
            return f"last {count}"
        if not self._method.families:
            return "last 0"
        return None if choose_layers(self._method) else "all"

    def _within(self, batch_size: int, micro_batch: int | None) -> Profile:
        """Return the profile with only those micro-batches that are no larger than the device's batch."""
        smallest = self._profile.micro_batches[0]
        kept = {
            b: floors
            for b, floors in self._profile.floors.items()
            if b <= batch_size or b in {micro_batch, smallest}
        }
        return replace(self._profile, floors=kept)


def within_of(resources: Resources) -> Within:
    """Return a device's limits in bytes, as the whole-device planner takes them."""
    reserve = resources.reserve_bytes or 0
    return Within(resources.ram_bytes, resources.flash_bytes, resources.budget_bytes, reserve)


def step_of(plan: Plan, update: Update | None = None) -> Hashable:
    """Return a key of a plan's step and its bytes: two plans of one profile with equal keys train alike.

    update: when weights move, for a plan that does not say so itself.
    """
    return plan.micro_batch, plan.update or update, frozenset(plan.methods.items())


def choose_layers(method: MethodConfig) -> bool:
    """Return whether plans choose which of the profile's layers train; if not, all or the last ones do."""
    return bool(method.families) and (method.recipe.chooses_layers or method.layers == "any")


def micro_batches_needed(every: Iterable[Resources], *, smaller: bool) -> tuple[int, ...]:
    """Return the micro-batches that a profile needs: powers of two up to the batch size, and all pinned ones.

    every: the resources of all devices. smaller: whether a device may go below its pinned micro-batch.
    """
    found: set[int] = set()
    for resources in every:
        largest = resources.micro_batch or resources.batch_size
        if smaller or resources.micro_batch is None:
            found.update(1 << power for power in range(largest.bit_length()) if 1 << power < largest)
        found.add(largest)
    return tuple(sorted(found))
