"""The plan: exact, never over budget, monotone in the budget, and readable from its file."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from fed_asi.errors import BudgetError, ConfigError, ProfileError
from fed_asi.methods import ASI, BiasOnly, Frozen, Quantized, Vanilla
from fed_asi.planning.knapsack import Choices, Knapsack, pareto
from fed_asi.planning.plan import FLOOR, Plan, differences
from fed_asi.planning.profile import Candidate, LayerProfile, ModelFingerprint, Profile
from fed_asi.planning.search import plan, smallest_plan_bytes

Rows = list[tuple[int, float]]


def choices(rows: Rows) -> Choices:
    return Choices(np.array([b for b, _ in rows], dtype=np.int64), np.array([v for _, v in rows]))


def brute_force(layers: list[Rows], budget: int) -> float | None:
    """The best value within the budget by trying everything."""
    fitting = [
        sum(value for _, value in picks)
        for picks in itertools.product(*layers)
        if sum(size for size, _ in picks) <= budget
    ]
    return max(fitting, default=None)


def by_milp(layers: list[Rows], budget: int) -> float:
    """The best value within the budget by a mixed-integer solver."""
    sizes = np.array([float(size) for rows in layers for size, _ in rows])
    values = np.array([value for rows in layers for _, value in rows])
    one_each = np.zeros((len(layers) + 1, len(sizes)))
    start = 0
    for index, rows in enumerate(layers):
        one_each[index, start : start + len(rows)] = 1
        start += len(rows)
    one_each[-1] = sizes
    lower, upper = [1.0] * len(layers) + [0.0], [1.0] * len(layers) + [float(budget)]
    found = milp(
        -values,
        constraints=LinearConstraint(one_each, lower, upper),
        integrality=np.ones(len(sizes)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    return float(-found.fun)


def realistic(rng: np.random.Generator, layers: int, candidates: int) -> list[Rows]:
    """Layers of very different worth, bytes and gain correlated as in real networks."""
    found = []
    for _ in range(layers):
        sizes = np.sort(rng.integers(0, 5000, candidates)) * 4
        scale = rng.lognormal(0, 2)
        values = scale * (1 - np.exp(-sizes / rng.uniform(500, 8000))) + rng.normal(
            0, 0.02 * scale, candidates
        )
        found.append(list(zip(sizes.tolist(), values.tolist(), strict=True)))
    return found


rows = st.lists(
    st.tuples(st.integers(0, 40), st.floats(-5, 5, allow_nan=False).map(lambda v: round(v, 3))),
    min_size=1,
    max_size=6,
)


def test_the_oracle_itself_finds_a_known_answer() -> None:
    layers: list[Rows] = [[(0, 0.0), (6, 10.0)], [(0, 0.0), (5, 9.0), (10, 9.5)]]
    assert brute_force(layers, 10) == 10.0
    assert brute_force(layers, 11) == 19.0
    assert by_milp(layers, 11) == pytest.approx(19.0)


@settings(max_examples=150, deadline=None)
@given(st.lists(rows, min_size=1, max_size=4), st.integers(0, 120))
def test_the_knapsack_equals_brute_force(layers: list[Rows], budget: int) -> None:
    solution = Knapsack([choices(layer) for layer in layers]).solve(budget)
    best = brute_force(layers, budget)
    if best is None:
        assert solution is None
        return
    assert solution is not None
    assert solution.value == pytest.approx(best, abs=1e-9)
    assert solution.bytes <= budget
    picked = [layer[index] for layer, index in zip(layers, solution.chosen, strict=True)]
    assert solution.bytes == sum(size for size, _ in picked)
    assert solution.value == pytest.approx(sum(value for _, value in picked), abs=1e-9)


@pytest.mark.few(1)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_knapsack_equals_a_mixed_integer_solver(seed: int) -> None:
    layers = realistic(np.random.default_rng(seed), 42, 64)
    budget = 30_000 + 90_000 * seed
    solution = Knapsack([choices(layer) for layer in layers]).solve(budget)
    assert solution is not None
    assert solution.value == pytest.approx(by_milp(layers, budget), rel=1e-9)


def test_pareto_drops_what_is_beaten() -> None:
    sizes = np.array([5, 1, 5, 3, 3], dtype=np.int64)
    assert pareto(sizes, np.array([2.0, 1.0, 3.0, 0.5, 1.5])).tolist() == [1, 4, 2]


def forms(micro_batch: int, found: Rows, convolution: bool = True) -> Iterator[Candidate]:
    """Tucker forms of these bytes and worth, two of a published grid that are worth more, and the whole."""
    for i, (size, value) in enumerate(found):
        yield Candidate(ASI((micro_batch, 1 + i)), size, size // 2, 1.0 / (1 + i), value)
    for i, (size, value) in enumerate(found[:2]):
        grid = ASI((micro_batch, 1 + i), order="published")
        yield Candidate(grid, size, size // 2, 1.0 / (1 + i), 2 * value, 0.4 + 0.1 * i)
    yield Candidate(Vanilla(), 4096 * micro_batch, 4096 * micro_batch if convolution else 0, 0.0, 20.0)


def layer(
    name: str, rows: dict[int, Rows], *, head: bool = False, position: int = 0, bias: float = 0.1
) -> LayerProfile:
    """A layer whose forms at each micro-batch have these (bytes, captured)."""
    candidates = {b: tuple(forms(b, found, not head)) for b, found in rows.items()}
    return LayerProfile(
        name, "Conv2d", (4, 8, 8), position, 100, 4, 2.0, 10.0, bias, (0.5,) * 4, candidates, head
    )


@pytest.fixture
def profile() -> Profile:
    small = {1: [(100, 2.0), (200, 4.0), (300, 4.5)], 4: [(300, 2.0), (500, 4.0), (700, 5.0)]}
    return Profile(
        ModelFingerprint("abc", (3, 8, 8), "float32"),
        (
            layer("a.conv", small, position=0),
            layer(
                "b.conv", {b: [(s * 2, v * 3) for s, v in found] for b, found in small.items()}, position=1
            ),
            layer("head", {1: [(16, 1.0)], 4: [(64, 1.0)]}, head=True, position=2),
        ),
        {1: (90, 50, 10), 4: (360, 200, 40)},
        8,
    )


def all_plans(profile: Profile, budget: int) -> float:
    """The best captured energy over every micro-batch, first layer and form, by trying everything."""
    best = -np.inf
    for b, floors in profile.floors.items():
        options = []
        for item in profile.layers:
            kept = [
                (c.saved_bytes, c.captured + item.bias_energy)
                for c in item.candidates[b]
                if c.epsilon is None
            ]
            options.append([*([] if item.head else [(None, 0.0)]), (0, item.bias_energy), *kept])
        for picks in itertools.product(*options):
            first = next(i for i, (size, _) in enumerate(picks) if size is not None)
            if floors[first] + sum(size or 0 for size, _ in picks) <= budget:
                best = max(best, sum(value for _, value in picks))
    return best


@pytest.mark.parametrize("budget", [10, 60, 150, 260, 300, 401, 650, 900, 1200, 4200, 9000, 20_000])
def test_a_plan_is_the_best_of_all_plans(profile: Profile, budget: int) -> None:
    found = plan(profile, budget)
    assert found.planned_bytes <= budget
    assert found.planned_bytes == sum(found.layer_bytes.values())
    assert found.value == pytest.approx(all_plans(profile, budget))
    assert "head" in found.methods


def test_a_bigger_budget_never_gives_a_worse_plan(profile: Profile) -> None:
    values = [plan(profile, budget).value for budget in range(10, 6000, 37)]
    assert values == sorted(values)


def test_unlimited_keeps_everything_at_the_largest_micro_batch(profile: Profile) -> None:
    found = plan(profile, None)
    assert found.budget_bytes is None
    assert found.micro_batch == 4
    assert set(found.methods.values()) == {Vanilla()}


def test_the_smallest_plan_is_named_when_nothing_fits(profile: Profile) -> None:
    smallest = smallest_plan_bytes(profile, layers="all", methods=("asi",))
    assert smallest == 90 + 100 + 200 + 16
    with pytest.raises(
        BudgetError, match=r"smallest plan, 406 B.*Largest: b.conv 200 B, a.conv 100 B, masks.* 90 B"
    ):
        plan(profile, smallest - 1, layers="all", methods=("asi",))
    assert plan(profile, smallest, layers="all", methods=("asi",)).planned_bytes == smallest


def test_last_n_trains_exactly_these_layers_and_the_head(profile: Profile) -> None:
    assert set(plan(profile, None, layers="last 1").methods) == {"b.conv", "head"}
    assert set(plan(profile, None, layers="last 0").methods) == {"head"}
    assert set(plan(profile, None, layers=["a.conv"]).methods) == {"a.conv", "head"}


def test_published_selection_uses_the_epsilon_grid_alone(profile: Profile) -> None:
    found = plan(profile, 500, selection="published", layers="all", micro_batch=1)
    assert found.objective == "perplexity"
    grid = {c.method for item in profile.layers for c in item.candidates[1] if c.epsilon is not None}
    assert {found.methods[name] for name in ("a.conv", "b.conv")} <= grid


def test_training_counts_gradients_and_momentum_unless_updated_inside_the_backward(profile: Profile) -> None:
    saved = plan(profile, None, micro_batch=1)
    training = plan(profile, None, micro_batch=1, count="training", momentum=True)
    inside = plan(profile, None, micro_batch=1, count="training", update="micro-batch")
    assert training.planned_bytes == saved.planned_bytes + 3 * 104 * 4 * 2
    assert inside.planned_bytes == saved.planned_bytes


def all_at_once(profile: Profile, budget: int) -> float:
    """The best captured energy by trying everything, where the largest gradient counts once and only then."""
    best = -np.inf
    for b, floors in profile.floors.items():
        options: list[list[tuple[int | None, float, int]]] = []
        for item in profile.layers:
            kept = [
                (c.saved_bytes, c.captured + item.bias_energy, 4 * ((8 if c.thin else 100) + 4))
                for c in item.candidates[b]
                if c.epsilon is None
            ]
            frozen = [] if item.head else [(None, 0.0, 0)]
            options.append([*frozen, (0, item.bias_energy, 4 * 4), *kept])
        for picks in itertools.product(*options):
            first = next(i for i, (size, _, _) in enumerate(picks) if size is not None)
            saved = floors[first] + sum(size or 0 for size, _, _ in picks)
            if saved + max(gradient for _, _, gradient in picks) <= budget:
                best = max(best, sum(value for _, value, _ in picks))
    return best


def some_thin(profile: Profile) -> Profile:
    """Of each layer every other form gives dW as thin matrices, and 8 of its weights are its norm's."""
    layers = []
    for item in profile.layers:
        made = {
            b: tuple(replace(c, thin=i % 2 == 1) for i, c in enumerate(found))
            for b, found in item.candidates.items()
        }
        layers.append(replace(item, candidates=made, scale_parameters=8))
    return replace(profile, layers=tuple(layers))


@pytest.mark.parametrize("budget", [30, 60, 150, 260, 401, 500, 650, 700, 900, 1200, 4200, 9000, 20_000])
def test_where_layers_move_at_once_the_largest_gradient_counts_once(profile: Profile, budget: int) -> None:
    thin = some_thin(profile)
    found = plan(thin, budget, count="training", update="layer")
    assert found.planned_bytes <= budget
    assert found.planned_bytes == sum(found.layer_bytes.values())
    assert found.value == pytest.approx(all_at_once(thin, budget))
    assert Plan.from_json(found.to_json()) == found
    assert "largest gradient" in str(found)


def test_the_largest_gradient_is_named_where_nothing_fits(profile: Profile) -> None:
    at_once = {"count": "training", "update": "layer"}
    smallest = smallest_plan_bytes(profile, **at_once)
    assert smallest == 10 + 4 * 4  # the head's biases, in the smallest micro-batch
    with pytest.raises(BudgetError, match=r"the largest layer's gradient 16 B"):
        plan(profile, smallest - 1, **at_once)
    assert plan(profile, None, update="layer").planned_bytes == plan(profile, None).planned_bytes


def test_published_count_leaves_out_floor_and_head(profile: Profile) -> None:
    found = plan(profile, None, micro_batch=1, count="published")
    assert found.planned_bytes == 2 * 4096


def test_unknown_words_are_all_named_at_once(profile: Profile) -> None:
    with pytest.raises(ConfigError) as raised:
        plan(profile, 500, objective="captured energy", count="savd", methods=("assi",))
    assert len(raised.value.problems) == 3
    with pytest.raises(ConfigError, match=r"hosvd: epsilon must be above 0"):
        plan(profile, 500, methods=("hosvd(epsilon=2.0)",))
    with pytest.raises(ConfigError, match=r"'frozen' is not known to the planner; leave the layer out"):
        plan(profile, 500, methods=("frozen",))
    with pytest.raises(ConfigError, match="last 4"):
        plan(profile, 500, layers="final 4")
    with pytest.raises(ConfigError, match=r"did you mean a\.conv"):
        plan(profile, 500, layers=["a.con"])
    with pytest.raises(ConfigError, match="can be kept as quantized, only as asi, bias, vanilla"):
        plan(profile, 500, layers="all", methods=("quantized",))
    bare = replace(profile.layers[0], candidates={1: (), 4: ()})
    with pytest.raises(ConfigError, match=r"a\.conv can be kept in none of the forms asked for \(asi"):
        plan(replace(profile, layers=(bare, *profile.layers[1:])), 500, layers="all", methods=("asi",))


def test_a_micro_batch_without_candidates_is_refused(profile: Profile) -> None:
    with pytest.raises(ProfileError, match="micro-batch 3, only for 1, 4"):
        plan(profile, 500, micro_batch=3)


def test_plans_are_read_back_as_they_were(profile: Profile) -> None:
    for budget in (60, 900, None):
        found = plan(profile, budget)
        assert Plan.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "not JSON"),
        ("[]", "no version"),
        ('{"version": 99}', "version 99; this release reads up to"),
        ('{"version": VERSION}', "corrupt: KeyError"),
    ],
)
@pytest.mark.parametrize(("kind", "version"), [(Plan, 1), (Profile, 2), (Profile, 3)])
def test_damaged_files_are_named(text: str, what: str, kind: type[Plan | Profile], version: int) -> None:
    with pytest.raises(ProfileError, match=f"mine.json .*{what}"):
        kind.from_json(text.replace("VERSION", str(version)), "mine.json")


def test_a_profile_that_held_another_count_is_refused() -> None:
    with pytest.raises(ProfileError, match="version 1, which this release no longer reads; make it again"):
        Profile.from_json('{"version": 1}', "mine.json")


def test_profiles_are_read_back_as_they_were(profile: Profile) -> None:
    again = Profile.from_json(profile.to_json())
    assert again == profile
    assert plan(again, 700) == plan(profile, 700)


def test_differences_name_layers_and_numbers(profile: Profile) -> None:
    small, large = plan(profile, 60), plan(profile, None)
    found = differences(small, large)
    assert found["micro_batch"] == ("1", "4")
    assert "a.conv" in found
    assert differences(large, replace(large)) == {}
    one, two = (
        replace(large, update="step", storage="int8"),
        replace(large, update="layer", storage="float16"),
    )
    assert differences(one, two) == {"update": ("step", "layer"), "storage": ("int8", "float16")}


@pytest.mark.slow
@pytest.mark.computes
def test_a_large_search_is_a_handful_of_small_ones() -> None:
    """42 layers, 64 candidates, 8 micro-batches: equal to the solver for the best of all of them."""
    rng = np.random.default_rng(7)
    tables = {2**p: realistic(rng, 42, 64) for p in range(8)}
    layers = tuple(
        LayerProfile(
            f"l{i}", "Conv2d", (1,), i, 1, 0, 1.0, 1.0, 0.0, (0.0,),
            {b: tuple(Candidate(Quantized(), s, s, 0.0, v) for s, v in table[i]) for b, table in tables.items()},
            head=i == 41,
        )
        for i in range(42)
    )  # fmt: skip
    profile = Profile(ModelFingerprint("x", (1,), "float32"), layers, dict.fromkeys(tables, (0,) * 42), 1)
    for table in tables.values():
        for row in table[:-1]:
            row.append((0, 0.0))
    found = plan(profile, 100_000, methods=("quantized",))
    assert found.value == pytest.approx(max(by_milp(table, 100_000) for table in tables.values()), rel=1e-9)
    assert FLOOR in found.layer_bytes


def test_forms_that_train_nothing_are_not_named(profile: Profile) -> None:
    found = plan(profile, 40)
    assert Frozen() not in found.methods.values()
    assert BiasOnly() in found.methods.values() or len(found.methods) == 1
