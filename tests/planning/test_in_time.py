"""Plans with time: the best of all possible plans, each counted by the clock itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from torch import Tensor, fx, nn

from fed_asi.compression.graph import analyse
from fed_asi.errors import BudgetError, ConfigError
from fed_asi.fleets.hardware import preset
from fed_asi.memory.work import Network, network_of
from fed_asi.methods import Method
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.duty import Duty
from fed_asi.planning.in_time import EQUAL, TimedPlan, plan_in_time
from fed_asi.planning.profile import Candidate, Profile
from fed_asi.planning.question import Options, ask
from fed_asi.planning.search import plan, smallest_plan_bytes
from fed_asi.planning.wishes import Wishes

BOARD = preset("stm32f746").hardware
DUTY = Duty({8: 3, 5: 1}, held=4, down_bytes=20_000)
FEW = 4  # forms a layer, of those calibration tried


@pytest.fixture(scope="module")
def profile(made: Profile) -> Profile:
    """The last layers with a few forms each, so that every plan can be looked at."""
    layers = []
    for layer in made.layers[-3:]:
        few = {b: tuple(found[:: max(1, len(found) // FEW)][:FEW]) for b, found in layer.candidates.items()}
        layers.append(replace(layer, candidates=few))
    floors = {b: sizes[-3:] for b, sizes in made.floors.items() if b in (1, 8)}
    return replace(made, layers=tuple(layers), floors=floors)


@pytest.fixture(scope="module")
def round(model: nn.Module, batch: tuple[Tensor, Tensor]) -> DeviceRound:
    traced = fx.symbolic_trace(model.eval())
    tail = network_of(traced, batch[0][:1], analyse(traced).pooled)
    return DeviceRound(Network(()), tail, DUTY, BOARD)


@dataclass(frozen=True)
class Seen:
    """One of all plans."""

    micro_batch: int
    methods: dict[str, Method]
    size: int
    worth: float
    seconds: float
    joules: float
    macs: int


@pytest.fixture(scope="module")
def every(profile: Profile, round: DeviceRound) -> list[Seen]:
    return list(all_plans(profile, round))


def all_plans(profile: Profile, round: DeviceRound) -> Iterator[Seen]:
    question = ask(profile, Options())
    for b in profile.micro_batches:
        options: list[list[Candidate]] = [question.candidates(layer, b) for layer in profile.layers]
        for picks in itertools.product(*options):
            first = next(i for i, c in enumerate(picks) if c.method.trains_bias)
            pairs = list(zip(profile.layers, picks, strict=True))
            methods = {layer.name: c.method for layer, c in pairs if c.method.trains_bias}
            spent, task = round.spent(methods, b), round.task(methods, b)
            yield Seen(
                b,
                methods,
                profile.floors[b][first] + sum(c.saved_bytes for c in picks),
                sum(question.value(layer, c) for layer, c in pairs),
                spent.sim_seconds,
                spent.energy_joules or 0.0,
                task.trunk.macs + task.step.macs + task.judging.macs,
            )


def seen(found: TimedPlan, every: list[Seen]) -> Seen:
    """The plan among all of them, which holds its own numbers to those that were counted one by one."""
    (same,) = (s for s in every if (s.micro_batch, s.methods) == (found.plan.micro_batch, found.plan.methods))
    assert found.plan.planned_bytes == same.size
    assert found.macs == same.macs
    return same


BUDGETS = [None, 3_000, 9_000]


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]


@pytest.mark.few(6)
@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("unit", ["seconds", "joules"])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.7])
def test_the_best_within_bytes_and_time(
    profile: Profile, round: DeviceRound, every: list[Seen], budget: int | None, unit: str, share: float
) -> None:
    within = [s for s in every if budget is None or s.size <= budget]
    most = quantile([getattr(s, unit) for s in within], share) * (1 + 1e-12)
    fitting = [s for s in within if getattr(s, unit) <= most]
    wishes = Wishes(**{f"max_{unit}": most}, quicker=False)
    found = seen(plan_in_time(profile, budget, round, wishes), every)
    assert found.worth == pytest.approx(max(s.worth for s in fitting), rel=1e-7)
    assert found.size <= (budget or found.size)
    assert getattr(found, unit) <= most


@pytest.mark.parametrize("budget", BUDGETS)
def test_both_limits_at_one_time(
    profile: Profile, round: DeviceRound, every: list[Seen], budget: int | None
) -> None:
    within = [s for s in every if budget is None or s.size <= budget]
    seconds = quantile([s.seconds for s in within], 0.5)
    joules = quantile([s.joules for s in within], 0.4)
    fitting = [s for s in within if s.seconds <= seconds and s.joules <= joules]
    found = seen(plan_in_time(profile, budget, round, Wishes(seconds, joules, quicker=False)), every)
    assert found.worth == pytest.approx(max(s.worth for s in fitting), rel=1e-7)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("unit", ["second", "joule"])
def test_the_most_gradient_for_each_second_or_joule(
    profile: Profile, round: DeviceRound, every: list[Seen], budget: int | None, unit: str
) -> None:
    within = [s for s in every if budget is None or s.size <= budget]
    best = max(s.worth / getattr(s, f"{unit}s") for s in within)
    objective = f"captured-per-{unit}"
    made = plan_in_time(profile, budget, round, Wishes(objective=objective))
    found = seen(made, every)
    assert found.worth / getattr(found, f"{unit}s") == pytest.approx(best, rel=1e-7)
    assert (made.plan.objective, made.plan.value) == (objective, pytest.approx(best, rel=1e-7))
    most = found.seconds * 0.95
    fitting = [s for s in within if s.seconds <= most]
    if fitting:
        limited = plan_in_time(profile, budget, round, Wishes(most, objective=objective))
        best = max(s.worth / getattr(s, f"{unit}s") for s in fitting)
        assert limited.plan.value == pytest.approx(best, rel=1e-7)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("clock", [True, False])
def test_among_equals_the_quicker(
    profile: Profile, round: DeviceRound, every: list[Seen], budget: int | None, clock: bool
) -> None:
    within = [s for s in every if budget is None or s.size <= budget]
    best = max(s.worth for s in within)
    equals = [s for s in within if s.worth >= best - EQUAL * abs(best)]
    there = round if clock else replace(round, hardware=None)
    made = plan_in_time(profile, budget, there, Wishes())
    found = seen(made, every)
    what = "seconds" if clock else "macs"
    assert found.worth >= best * (1 - EQUAL) - 1e-9
    assert getattr(found, what) == pytest.approx(min(getattr(s, what) for s in equals), rel=1e-7)
    assert (made.spent is None) == (not clock)


def test_without_wishes_it_is_the_plan_of_bytes_alone(profile: Profile, round: DeviceRound) -> None:
    for budget in (*BUDGETS, smallest_plan_bytes(profile)):
        plain = plan(profile, budget)
        found = plan_in_time(profile, budget, round, Wishes(quicker=False))
        assert found.plan.value == pytest.approx(plain.value, rel=1e-9)


def test_a_longer_time_is_never_worse(profile: Profile, round: DeviceRound, every: list[Seen]) -> None:
    times = sorted(s.seconds for s in every)
    values = [
        plan_in_time(profile, 9_000, round, Wishes(times[i], quicker=False)).plan.value
        for i in (40, 90, 200, len(times) - 1)
        if min(s.seconds for s in every if s.size <= 9_000) <= times[i]
    ]
    assert values == sorted(values)
    assert values


def test_what_binds_is_named(profile: Profile, round: DeviceRound, every: list[Seen]) -> None:
    quickest = min(s.seconds for s in every)
    with pytest.raises(
        BudgetError, match=r"^max_seconds [\d.e-]+ is below the plan that takes least"
    ) as raised:
        plan_in_time(profile, None, round, Wishes(quickest * 0.99))
    text = str(raised.value)
    assert f"{quickest:.4g} seconds" in text
    assert "Most of it is the" in text
    assert "raise max_seconds" in text
    with pytest.raises(BudgetError, match="max_joules"):
        plan_in_time(profile, None, round, Wishes(max_joules=1e-9))
    with pytest.raises(BudgetError, match="budget 10 B is below the smallest plan"):
        plan_in_time(profile, 10, round, Wishes(max_seconds=1e9))
    smallest = smallest_plan_bytes(profile)
    slow = min(s.seconds for s in every if s.size <= smallest)
    assert plan_in_time(profile, smallest, round, Wishes(slow * (1 + 1e-12))).plan.planned_bytes == smallest
    with pytest.raises(BudgetError, match=f"{slow:.4g} seconds"):
        plan_in_time(profile, smallest, round, Wishes(slow * 0.999))


def test_time_is_asked_of_devices_that_have_a_clock(profile: Profile, round: DeviceRound) -> None:
    timeless = replace(round, hardware=None)
    with pytest.raises(
        ConfigError, match="objective 'captured-per-second': a device without rates has no clock"
    ):
        plan_in_time(profile, None, timeless, Wishes(objective="captured-per-second"))
    powerless = replace(round, hardware=replace(BOARD, compute_watts=None))
    with pytest.raises(ConfigError, match="max_joules 3: stm32f746 does not say compute_watts"):
        plan_in_time(profile, None, powerless, Wishes(max_joules=3.0))
    assert plan_in_time(profile, None, powerless, Wishes(max_seconds=1e9)).spent is not None
    with pytest.raises(ConfigError, match="is of what is captured, not perplexity"):
        plan_in_time(profile, None, round, Wishes(objective="captured-per-joule"), objective="perplexity")
    with pytest.raises(ConfigError, match="max_seconds 0"):
        plan_in_time(profile, None, round, Wishes(0.0))
