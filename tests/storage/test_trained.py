"""Trained weights in float16: rounded at random, so that small steps count, and numbers of float16 stay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fed_asi.layers.slices import Slice
from fed_asi.storage.trained import HalfWeights
from fed_asi.training.sgd import Sgd

LARGEST = 65504.0


def rounded(x: Tensor, seed: int = 0) -> Tensor:
    x = x.clone()
    HalfWeights(seed).store_(x)
    return x


def every_float16() -> Tensor:
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16).float()
    return numbers[numbers.isfinite()]


def test_numbers_of_float16_stay_to_the_bit() -> None:
    numbers = every_float16()
    assert len(numbers) == 2 * 31 * 1024
    assert all(torch.equal(rounded(numbers, seed), numbers) for seed in range(5))


@settings(max_examples=200, deadline=None)
@given(x=st.floats(-LARGEST, LARGEST, width=32), seed=st.integers(0, 9))
def test_others_become_one_of_their_two_neighbours(x: float, seed: int) -> None:
    known = every_float16()
    below, above = known[known <= x].max(), known[known >= x].min()
    assert rounded(torch.tensor([x]), seed).item() in {below.item(), above.item()}


@pytest.mark.parametrize("x", [0.1, -0.3, 1.0001, 1e-6, -2e-8, 1000.7])
def test_the_mean_is_the_number(x: float) -> None:
    many = torch.full((100_000,), x)
    found = rounded(many).double()
    distance = float(found.max() - found.min())
    assert distance > 0.0
    error = 4.5 * distance / 2 / math.sqrt(len(many))  # of the mean: 4.5 standard errors at most
    assert abs(float(found.mean()) - float(many[0])) < error


def test_out_of_range_is_not_finite() -> None:
    assert not rounded(torch.tensor([70000.0, -1e30, math.inf, math.nan])).isfinite().any()


def test_only_the_trained_part_is_rounded_and_a_seed_decides_it() -> None:
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    part = Slice(1, torch.tensor([1, 4]))
    found = []
    for seed in (0, 0, 1):
        mine = x.clone()
        HalfWeights(seed).store_(mine, part)
        found.append(mine)
    rest = part.rest(x)
    assert torch.equal(rest.of(found[0]), rest.of(x))
    assert torch.equal(part.of(found[0]), part.of(found[0]).half().float())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("momentum", [0.0, 0.5])
@pytest.mark.parametrize("moves", ["step_", "move_"])
def test_steps_far_below_the_distance_of_neighbours_count_in_the_long_run(
    moves: str, momentum: float
) -> None:
    """2,000 steps of a 32nd of the distance: to the nearest number, none of them would move anything."""
    layer = nn.Linear(50, 20, bias=False)
    nn.init.constant_(layer.weight, 0.5)
    optimizer = Sgd(layer.named_parameters(), momentum=momentum, stored=HalfWeights(0))
    gradient = torch.full((20, 50), 2.0**-12)  # at a rate of 1 / 16
    for _ in range(2000):
        if moves == "step_":
            layer.weight.grad = gradient.clone()
            optimizer.step_(1 / 16)
        else:
            with torch.no_grad():
                optimizer.move_("weight", layer.weight, gradient, 1 / 16)
        assert torch.equal(layer.weight, layer.weight.half().float())
    expected = 2000 * 2.0**-16 / (1 - momentum)
    moved = 0.5 - float(layer.weight.detach().mean())
    assert moved == pytest.approx(expected, rel=0.02)
    nearest = torch.tensor(0.5) - 2.0**-16 / (1 - momentum)
    assert nearest.half() == 0.5
