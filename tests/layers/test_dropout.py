"""Dropout with its own random stream: repeatable, one bit per element, global state untouched."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fed_asi import layers
from fed_asi.layers.draws import DrawState
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import Frozen


def made(p: float = 0.25, seed: int = 3) -> nn.Module:
    module = nn.Dropout(p)
    layers.attach_(module, DrawState("drop", Frozen(), nn.Dropout, seed=seed))
    return module


def test_the_same_seed_and_call_give_the_same_mask_and_the_global_state_rests() -> None:
    state = torch.get_rng_state()
    x = torch.ones(1000)
    one, two = made(), made()
    first, second = one(x), one(x)
    assert torch.equal(two(x), first)
    assert not torch.equal(first, second)
    assert not torch.equal(made(seed=4)(x), first)
    assert torch.equal(copy.deepcopy(two)(x), second)
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(set(first.tolist())) == [0.0, pytest.approx(4 / 3)]
    assert 0.2 < (first == 0).float().mean() < 0.3


def test_the_gradient_is_the_mask_and_a_bit_an_element_is_kept() -> None:
    module = made()
    x = torch.randn(5, 13, dtype=torch.float64, requires_grad=True)
    with ActivationMeter(module) as meter:
        y = module(x)
    (g,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(g, (y / x).detach(), rtol=1e-12)
    kind = layers.kind_of(module)
    assert kind is not None
    assert meter.saved_bytes == 9 == kind.saved_bytes(module, Frozen(), x.shape)


def test_eval_and_the_extremes() -> None:
    x = torch.ones(50)
    assert made().eval()(x) is x
    assert made(0.0)(x) is x
    assert torch.equal(made(1.0)(x), torch.zeros(50))
