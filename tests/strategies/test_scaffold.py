"""SCAFFOLD at the server: whole updates against the paper's algorithm 1, and the result of partial ones."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_asi.strategies import Conditions, Round, Update
from fed_asi.strategies.scaffold import Scaffold
from rounds_drawn import DEVICES, gaussian, rounds, variates, whole


def test_whole_updates_come_to_algorithm_1() -> None:
    """The paper's lines 16 and 17, in numpy, over three rounds with a server's step of 0.7."""
    strategy, tensors, state = Scaffold(server_lr=0.7), gaussian(0), {}
    x = {name: tensor.double().numpy() for name, tensor in tensors.items()}
    c = {name: np.zeros_like(value) for name, value in x.items()}
    for round in (1, 2, 3):
        drawn = whole([round, round + 3, 9], tensors, round)
        for name in x:
            moved = [u.tensors[name].double().numpy() - tensors[name].double().numpy() for u in drawn.updates]
            x[name] = tensors[name].double().numpy() + 0.7 * np.mean(moved, 0)
            changed = [u.extra[f"variate..{name}"].double().numpy() for u in drawn.updates]
            c[name] = c[name] + np.sum(changed, 0) / DEVICES
        found = strategy.combine(drawn, state)
        sent = strategy.sent(found.state, found.tensors)
        for name, tensor in found.tensors.items():
            assert np.abs(tensor.numpy() - x[name]).max() < 1e-6
            assert np.abs(sent[f"variate..{name}"].numpy() - c[name]).max() < 1e-7
        tensors, state = found.tensors, found.state


@settings(max_examples=30, deadline=None)
@given(st.lists(rounds(fewest=1), min_size=1, max_size=3))
def test_c_is_the_mean_of_the_variates_of_those_that_train_a_tensor(drawn: list[Round]) -> None:
    strategy, state = Scaffold(), {}
    own: dict[str, dict[int, torch.Tensor]] = {name: {} for name in drawn[0].tensors}
    seen = set()
    for one in drawn:
        for update in one.updates:
            seen.add(update.partition_id)
            for name in update.tensors:
                before = own[name].get(update.partition_id, torch.tensor(0.0))
                own[name][update.partition_id] = before + update.extra[f"variate..{name}"].double()
        state = strategy.combine(one, state).state
    sent = strategy.sent(state, drawn[0].tensors)
    assert set(sent) == {f"variate..{name}" for name, by in own.items() if by}
    for name, by in own.items():
        if by:
            expected = torch.stack(list(by.values())).sum(0) / (DEVICES * len(by) / len(seen))
            assert (sent[f"variate..{name}"].double() - expected).abs().max() < 1e-5


def test_a_tensor_that_half_the_devices_train_is_not_corrected_to_half_its_steps() -> None:
    """With every device's variate its gradient g, c has to be g too: then no step is corrected at all."""
    tensors, state, gradient = gaussian(0), {}, variates(gaussian(0), 1)
    updates = []
    for k in range(DEVICES):
        names = list(tensors) if k % 2 else ["head.weight"]
        new = {name: tensors[name] for name in names}
        updates.append(Update(k, 1, new, extra={key: gradient[key] for key in variates(new, 1)}))
    strategy = Scaffold()
    state = strategy.combine(Round.of(1, tensors, updates, DEVICES, 0.0), state).state
    for name, tensor in strategy.sent(state, tensors).items():
        assert torch.allclose(tensor, gradient[name], atol=1e-6)


def test_what_does_not_go_with_it_is_said() -> None:
    assert not list(Scaffold().problems(Conditions(3)))
    problems = list(Scaffold().problems(Conditions(3, momentum=0.9, weighted=True, update="layer")))
    assert [one.partition(":")[0] for one in problems] == [
        "aggregate.strategy",
        "train.update",
        "train.momentum",
    ]
