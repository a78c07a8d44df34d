"""What a compressed layer remembers, and that the model around it does not change."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from fed_asi import layers
from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.layers import LayerState, attach_, detach_
from fed_asi.methods import ASI, Method
from fed_asi.methods.forms import Whole


def model(ranks: tuple[int, ...] = (2, 3, 2, 2)) -> nn.Sequential:
    made = nn.Sequential(nn.Conv2d(6, 4, 3, padding=1), nn.Flatten())
    attach_(made[0], LayerState("0", ASI(ranks), nn.Conv2d, seed=7))
    return made


def step(made: nn.Module, size: int = 6, batch: int = 4) -> None:
    made(torch.randn(batch, 6, size, 5, generator=torch.Generator().manual_seed(size))).sum().backward()


def test_factors_wait_for_the_optimizer_step():
    made = model()
    step(made)
    assert layers.factors(made) == {}
    layers.commit_factors_(made)
    first = layers.factors(made)["0"]
    assert [tuple(f.shape) for f in first] == [(0, 0), (6, 3), (6, 2), (5, 2)]
    step(made)
    assert all(torch.equal(a, b) for a, b in zip(first, layers.factors(made)["0"], strict=True))


def test_an_optimizer_step_moves_the_factors_and_nothing_else_does():
    made = model()
    told = copy.deepcopy(made)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.1) for one in (made, told)]
    for _ in range(3):
        for one, optimizer in zip((made, told), optimizers, strict=True):
            step(one)
            step(one, batch=3)  # a second micro-batch of the same step starts from the same factors
            optimizer.step()
            optimizer.zero_grad()
        layers.commit_factors_(told)
        ours, theirs = layers.factors(made)["0"], layers.factors(told)["0"]
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    before = layers.factors(made)["0"]
    step(made, batch=2)
    made(torch.randn(2, 6, 6, 5))
    assert all(torch.equal(a, b) for a, b in zip(before, layers.factors(made)["0"], strict=True))
    assert torch.equal(made[0].weight, told[0].weight)


@dataclass(frozen=True)
class Counting(Method):
    """A method of a user's own: it keeps the input, and as its factor a number that each step raises by one."""

    kind: ClassVar[str] = "counting"
    warm: bool = True

    @property
    def warm_start(self) -> bool:
        return self.warm

    def form(self, x, keeper):
        held = 0.0 if keeper.factors is None else float(keeper.factors[0])
        keeper.pending = [torch.full((1, 1), held + 1), *[None] * (x.dim() - 1)]
        return Whole((x,))


def counting(warm: bool) -> nn.Sequential:
    made = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten())
    attach_(made[0], LayerState("0", Counting(warm), nn.Conv2d))
    return made


def test_factors_of_a_users_own_method_wait_for_the_optimizer_step():
    made = counting(warm=True)
    x, optimizer = torch.ones(2, 2, 4, 4), torch.optim.SGD(made.parameters(), lr=0.1)
    for expected in (1, 2):
        for _ in range(3):  # micro-batches
            made(x).sum().backward()
        optimizer.step()
        made(x)  # without a backward pass
        with torch.no_grad():
            made(x)
        assert layers.factors(made)["0"][0].item() == expected


def test_factors_that_no_step_would_start_from_are_refused():
    with pytest.raises(
        UnsupportedLayerError, match="0: Counting sets pending factors, but its warm_start is False"
    ):
        counting(warm=False)(torch.ones(2, 2, 4, 4))


def test_a_changed_resolution_restarts_that_mode_alone():
    warm, cold = model(), model()
    step(warm)
    layers.commit_factors_(warm)
    kept = layers.state_of(warm[0]).factors
    layers.state_of(cold[0]).factors = [None, kept[1], None, kept[3]]
    for made in (warm, cold):
        made.zero_grad()
        step(made, size=7, batch=3)
    assert torch.equal(warm[0].weight.grad, cold[0].weight.grad)


def test_factors_survive_a_change_of_ranks_either_way():
    made = model()
    step(made)
    layers.commit_factors_(made)
    saved = layers.factors(made)
    for ranks in ((2, 2, 1, 2), (2, 5, 3, 3)):
        other = model(ranks)
        layers.load_factors_(other, saved)
        step(other)
        layers.commit_factors_(other)
        assert layers.factors(other)["0"][1].shape == (6, ranks[1])
    with pytest.raises(ConfigError, match="not compressed"):
        layers.load_factors_(other, {"9": saved["0"]})


def test_copies_and_pickles_go_on_alike():
    made = model()
    step(made)
    layers.commit_factors_(made)
    made.zero_grad()
    several = [made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))]
    for one in several:
        step(one)
    assert torch.equal(several[0][0].weight.grad, several[1][0].weight.grad)
    assert torch.equal(several[0][0].weight.grad, several[2][0].weight.grad)
    assert layers.state_of(several[1][0]) is not layers.state_of(made[0])


def test_parameters_names_and_class_come_back():
    made = model()
    plain = nn.Sequential(nn.Conv2d(6, 4, 3, padding=1), nn.Flatten())
    assert list(made.state_dict()) == list(plain.state_dict())
    weight = made[0].weight
    detach_(made[0])
    assert made[0].weight is weight
    assert type(made[0]) is nn.Conv2d
    assert "_asi" not in made[0].__dict__


def test_what_no_layer_can_do_is_refused_by_name():
    with pytest.raises(UnsupportedLayerError, match=r"block: rank 9 is above its 6 input channels"):
        attach_(nn.Conv2d(6, 4, 3), LayerState("block", ASI((1, 9, 1, 1)), nn.Conv2d))
    with pytest.raises(UnsupportedLayerError, match=r"block: 2 ranks"):
        attach_(nn.Conv2d(6, 4, 3), LayerState("block", ASI((1, 1)), nn.Conv2d))
    with pytest.raises(UnsupportedLayerError, match=r"block: no compressed form of Bilinear"):
        attach_(nn.Bilinear(2, 2, 2), LayerState("block", ASI((1, 1)), nn.Bilinear))
    with pytest.raises(UnsupportedLayerError, match=r"0: rank 2 is above the 1 of mode 2"):
        step(model(), size=1)
    with pytest.raises(UnsupportedLayerError, match=r"complex64"):
        model()(torch.zeros(1, 6, 5, 5, dtype=torch.complex64))
