"""Trunks in float16, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx, nn

from fed_asi.compression import cut
from fed_asi.errors import UnsupportedLayerError
from fed_asi.storage.trunk import stored_trunk
from tails import tail_of


def test_weights_and_everything_between_layers_is_float16() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    stored = stored_trunk(fx.symbolic_trace(net).requires_grad_(False), "float16")
    half = [np.float16(p.detach().numpy()) for p in net.parameters()]

    def linear(a: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.float16(a.astype(np.float64) @ w.T.astype(np.float64) + b)

    between = np.float16(np.tanh(linear(np.float16(x.numpy()), *half[:2]).astype(np.float64)))
    expected = linear(between, *half[2:])
    found = stored(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, found.half().float())
    steps = np.spacing(np.abs(expected))
    assert (np.abs(found.numpy() - expected) <= steps).all()
    assert not torch.equal(found, net(x))


def test_a_network_is_near_its_own_and_the_given_one_is_left_alone() -> None:
    tail = tail_of("tiny", None, size=32, layers=1)
    trunk = cut.folded(tail.trunk)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    stored = stored_trunk(trunk, "float16")
    assert 0 < (stored(tail.images) - trunk(tail.images)).norm() < 0.01 * trunk(tail.images).norm()
    assert all(torch.equal(value, before[name]) for name, value in trunk.state_dict().items())


def test_weights_that_float16_cannot_hold_are_named() -> None:
    trunk = fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2))).requires_grad_(False)
    with torch.no_grad():
        trunk.get_parameter("0.weight")[0, 0] = -1e5
    with pytest.raises(
        UnsupportedLayerError, match=r"^0\.weight cannot be stored as float16: it reaches 1e\+05"
    ):
        stored_trunk(trunk, "float16")
