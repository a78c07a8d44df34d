"""FedNova against the paper's equations, written out step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_asi.strategies import Conditions, Round, Update
from fed_asi.strategies.fedavg import FedAvg
from fed_asi.strategies.fednova import FedNova, reach
from rounds_drawn import DEVICES, rounds


@given(st.integers(1, 40), st.floats(0.0, 0.95))
def test_reach_is_how_far_constant_gradients_go(steps: int, momentum: float) -> None:
    """With a gradient of 1 and a rate of 1, SGD with momentum ends at the sum of its velocities."""
    end = velocity = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1.0
        end += velocity
    assert reach(steps, momentum) == pytest.approx(end, rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(rounds(fewest=1))
def test_it_is_equation_7_by_tensor(drawn: Round) -> None:
    found = FedNova().combine(drawn, {}).tensors
    for name, tensor in drawn.tensors.items():
        who = [u for u in drawn.updates if name in u.tensors]
        if not who:
            continue
        n = np.array([u.num_examples for u in who], dtype=np.float64)
        p, x = n / n.sum(), tensor.double().numpy()
        a = np.array([reach(u.steps, drawn.momentum) for u in who])
        d = [(x - u.tensors[name].double().numpy()) / one for u, one in zip(who, a, strict=True)]
        expected = x - (p * a).sum() * sum(weight * one for weight, one in zip(p, d, strict=True))
        assert np.abs(found[name].double().numpy() - expected).max() < 1e-4 * max(1.0, np.abs(expected).max())


@settings(max_examples=30, deadline=None)
@given(rounds(), st.integers(1, 7))
def test_with_equal_steps_it_is_fedavg(drawn: Round, steps: int) -> None:
    equal = [Update(u.partition_id, u.num_examples, u.tensors, u.factors, steps) for u in drawn.updates]
    one = Round.of(1, drawn.tensors, equal, DEVICES, 0.0)
    ours, theirs = FedNova().combine(one, {}).tensors, FedAvg().combine(one, {}).tensors
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5, rtol=1e-5) for name in ours)


def test_a_device_of_many_steps_weighs_no_more_for_them() -> None:
    """Two devices that move alike a step: the direction is the same as if both took as many."""
    tensors = {"w": torch.zeros(2)}
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    updates = [Update(0, 1, {"w": 10 * east}, steps=10), Update(1, 1, {"w": 2 * north}, steps=2)]
    found = FedNova().combine(Round.of(1, tensors, updates, 2, 0.0), {}).tensors["w"]
    assert torch.allclose(
        found, torch.tensor([3.0, 3.0])
    )  # FedAvg: (5, 1), drawn to the device of many steps


def test_momentum_over_micro_batches_is_refused() -> None:
    assert not list(FedNova().problems(Conditions(3, momentum=0.9)))
    assert not list(FedNova().problems(Conditions(3, update="micro-batch", weighted=True)))
    (problem,) = FedNova().problems(Conditions(3, momentum=0.9, update="micro-batch"))
    assert problem.startswith('train.update: "micro-batch" has momentum')
