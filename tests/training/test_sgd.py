"""SGD: equal to torch's to the bit, and the learning rate of each round."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fed_asi.training.sgd import Sgd, learning_rate


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.parametrize("clip_norm", [None, 0.1, 1e6])
def test_equals_torch_to_the_bit(momentum: float, weight_decay: float, clip_norm: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    mine = Sgd(ours.named_parameters(), momentum=momentum, weight_decay=weight_decay, clip_norm=clip_norm)
    reference = torch.optim.SGD(
        theirs.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay, foreach=False
    )
    for _ in range(4):
        x = torch.randn(5, 4, generator=generator)
        ours(x).square().sum().backward()
        reference.zero_grad()
        theirs(x).square().sum().backward()
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip_norm, foreach=False)
        mine.step_(0.1)
        reference.step()
        assert torch.equal(ours.weight, theirs.weight)
        assert torch.equal(ours.bias, theirs.bias)
        assert ours.weight.grad is None


def test_frozen_parameters_and_those_without_gradient_stay() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Sgd(model.named_parameters(), weight_decay=0.5)
    optimizer.step_(1.0)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step_(1.0)
    assert torch.equal(before["bias"], model.bias)
    assert not torch.equal(before["weight"], model.weight)


def test_momentum_bytes() -> None:
    model = nn.Linear(4, 3)
    optimizer = Sgd(model.named_parameters(), momentum=0.9)
    assert optimizer.state_bytes == 0
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step_(0.1)
    assert optimizer.state_bytes == 4 * (12 + 3)


def test_a_constant_rate_stays() -> None:
    assert [learning_rate(0.1, 0.5, "constant", round, 5) for round in (1, 3, 5)] == [0.1] * 3


def test_a_cosine_falls_from_the_first_round_to_the_last() -> None:
    rates = [learning_rate(0.2, 0.1, "cosine", round, 5) for round in range(1, 6)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[2] == pytest.approx(0.2 * (0.1 + 0.9 * 0.5))
    assert rates[4] == pytest.approx(0.02)
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(0.2, 0.1, "cosine", 1, 1) == 0.2
