"""The robust strategies against devices that send anything: the result stays near the honest devices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_asi.strategies import Conditions, Round, Strategy, Update
from fed_asi.strategies.krum import Krum, distances, scores
from fed_asi.strategies.median import Median
from fed_asi.strategies.norm_bound import NormBound
from fed_asi.strategies.trimmed_mean import TrimmedMean
from rounds_drawn import DEVICES, gaussian, rounds

VALUES = st.sampled_from([3e38, -3e38, 0.0, 1e6, -1e6, 0.5])


@st.composite
def attacked(draw: st.DrawFn) -> tuple[Round, int]:
    """A round whose tensors 5 honest devices or more trained, and 2 hostile ones; and who is the first hostile."""
    tensors = gaussian(0)
    honest = draw(st.integers(5, 7))
    updates = []
    for k in range(honest):
        moved = gaussian(k + 1, 0.1)
        updates.append(Update(k, 1 + k, {name: tensors[name] + moved[name] for name in tensors}))
    for k in range(honest, honest + 2):
        names = draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, unique=True))
        new = {name: torch.full_like(tensors[name], draw(VALUES)) for name in names}
        updates.append(Update(k, draw(st.sampled_from([1, 2**63 - 1])), new))
    return Round.of(1, tensors, updates, DEVICES, 0.0), honest


def spans(given: Round, honest: int) -> dict[str, tuple[Tensor, Tensor]]:
    found = {}
    for name in given.tensors:
        said = torch.stack([u.tensors[name] for u in given.updates[:honest] if name in u.tensors])
        found[name] = (said.amin(0), said.amax(0))
    return found


@pytest.mark.parametrize("strategy", [Median(), TrimmedMean(0.3)], ids=str)
@settings(max_examples=60, deadline=None)
@given(attacked())
def test_each_number_lies_between_honest_ones(strategy: Strategy, one: tuple[Round, int]) -> None:
    given, honest = one
    found = strategy.combine(given, {}).tensors
    for name, (low, high) in spans(given, honest).items():
        assert bool(((low <= found[name]) & (found[name] <= high)).all())


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([3e38, -3e38, 1e6, -1e6]), st.integers(1, 3))
def test_krum_keeps_none_of_those_far_away(value: float, keep: int) -> None:
    tensors = gaussian(0)
    near = [
        Update(k, 1, {name: tensors[name] + gaussian(k + 1, 0.1)[name] for name in tensors}) for k in range(5)
    ]
    far = Update(9, 2**63 - 1, {name: torch.full_like(tensor, value) for name, tensor in tensors.items()})
    given = Round.of(1, tensors, [*near, far], DEVICES, 0.0)
    found = Krum(hostile=1, keep=keep).combine(given, {})
    assert found.notes == ()
    for name, (low, high) in spans(given, 5).items():
        assert bool(((low - 1e-6 <= found.tensors[name]) & (found.tensors[name] <= high + 1e-6)).all())


@settings(max_examples=60, deadline=None)
@given(attacked())
def test_norm_bound_limits_what_they_move(one: tuple[Round, int]) -> None:
    given, _ = one
    for name, tensor in NormBound(max_norm=0.5).combine(given, {}).tensors.items():
        assert float((tensor - given.tensors[name]).norm()) <= 0.5 * (1 + 1e-5)


@settings(max_examples=40, deadline=None)
@given(rounds(), st.sampled_from([0.01, 0.3, 5.0]))
def test_norm_bound_is_the_mean_of_shortened_steps(drawn: Round, most: float) -> None:
    """In numpy, by tensor, a device's step shortened as a whole; also where devices trained other tensors."""
    found = NormBound(max_norm=most).combine(drawn, {}).tensors
    x = {name: tensor.double().numpy() for name, tensor in drawn.tensors.items()}
    steps = [{name: t.double().numpy() - x[name] for name, t in u.tensors.items()} for u in drawn.updates]
    lengths = [float(np.linalg.norm(np.concatenate([d.ravel() for d in one.values()]))) for one in steps]
    for name, at in x.items():
        who = [k for k, one in enumerate(steps) if name in one]
        n = np.array([drawn.updates[k].num_examples for k in who], dtype=np.float64)
        short = [steps[k][name] * min(1.0, most / max(lengths[k], 1e-300)) for k in who]
        expected = at + sum(w * one for w, one in zip(n / n.sum(), short, strict=True)) if who else at
        assert np.abs(found[name].numpy() - expected).max() < 1e-5


@settings(max_examples=60, deadline=None)
@given(rounds(), st.integers(0, 2), st.integers(1, 3))
def test_krum_is_the_definition_over_what_both_trained(drawn: Round, hostile: int, keep: int) -> None:
    """In numpy: every pair, the sum over the nearest, those of the lowest sums, their weighted mean by tensor."""
    told = [{n: t.double().numpy().ravel() for n, t in u.tensors.items()} for u in drawn.updates]
    sums = []
    for i, one in enumerate(told):
        apart = []
        for other in told[:i] + told[i + 1 :]:
            differences = np.concatenate([[], *(one[n] - other[n] for n in one if n in other)])
            apart.append(float(np.mean(differences**2)) if len(differences) else np.inf)
        sums.append(sum(sorted(apart)[: max(1, len(told) - hostile - 2)]))
    best = sorted(range(len(told)), key=lambda i: (round(sums[i], 12), i))[:keep]
    found = Krum(hostile=hostile, keep=keep).combine(drawn, {}).tensors
    for name, tensor in drawn.tensors.items():
        who = [drawn.updates[i] for i in best if name in drawn.updates[i].tensors]
        n = sum(u.num_examples for u in who)
        expected = sum(u.num_examples / n * u.tensors[name].double() for u in who) if who else tensor.double()
        assert float((found[name].double() - expected).abs().max()) < 1e-5


def test_distances_of_partial_updates_are_over_what_both_trained() -> None:
    a = Update(0, 1, {"w": torch.tensor([1.0, 0.0]), "v": torch.tensor([5.0])})
    b = Update(1, 1, {"w": torch.tensor([0.0, 2.0])})
    c = Update(2, 1, {"v": torch.tensor([2.0])})
    found = distances((a, b, c), {"w": torch.zeros(2), "v": torch.zeros(1)})
    assert float(found[0, 1]) == pytest.approx((1.0 + 4.0) / 2)
    assert float(found[0, 2]) == pytest.approx(9.0)
    assert float(found[1, 2]) == float("inf")
    assert torch.equal(found, found.T)


def test_scores_count_the_nearest_others() -> None:
    apart = torch.tensor(
        [
            [9.0, 1.0, 2.0, 7.0, 8.0],
            [1.0, 9.0, 3.0, 6.0, 5.0],
            [2.0, 3.0, 9.0, 4.0, 9.0],
            [7.0, 6.0, 4.0, 9.0, 1.0],
            [8.0, 5.0, 9.0, 1.0, 9.0],
        ]
    )
    assert scores(apart, 1) == [3.0, 4.0, 5.0, 5.0, 6.0]  # 5 - 1 - 2 = 2 nearest
    assert scores(apart, 9) == [1.0, 1.0, 2.0, 1.0, 1.0]  # never fewer than one


def test_too_few_updates_for_krum_are_noted() -> None:
    tensors = {"w": torch.zeros(2)}
    updates = [Update(k, 1, {"w": torch.full((2,), float(k))}) for k in range(4)]
    found = Krum(hostile=1).combine(Round.of(1, tensors, updates, DEVICES, 0.0), {})
    assert found.notes == ("4 updates came, and Krum needs 5 to hold against 1 hostile",)


def test_a_fleet_too_small_is_refused_before_the_start() -> None:
    assert not list(Krum(hostile=1).problems(Conditions(5)))
    assert not list(TrimmedMean(0.2).problems(Conditions(5)))
    assert "Krum needs 5 of them" in next(Krum(hostile=1).problems(Conditions(4)))
    assert "4 of 5 devices in a round are not hostile" in next(
        Krum(hostile=1, keep=5).problems(Conditions(5))
    )
    assert "leaves none out" in next(TrimmedMean(0.2).problems(Conditions(4)))
    weighted = replace(Conditions(5), weighted=True)
    for strategy in (Median(), TrimmedMean(0.2)):
        (problem,) = strategy.problems(weighted)
        assert "gives every update the same weight" in problem
