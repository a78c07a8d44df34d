"""What each layer adds to a step: the sum is the most bytes alive at any time, also for mixes never traced."""

from __future__ import annotations

import itertools
from functools import cache, partial

import pytest
import torch
from torch import nn

from fed_asi.compression.compress import compress_known_
from fed_asi.compression.graph import Graph, analyse
from fed_asi.memory.arena.lifetimes import lifetimes
from fed_asi.memory.arena.offsets import lower_bound
from fed_asi.memory.arena.shares import Share, Shares, most_alive
from fed_asi.memory.arena.split import shares
from fed_asi.memory.arena.step import record_step
from fed_asi.memory.arena.trace import Trace
from fed_asi.methods import ASI, BiasOnly, Frozen, Method, Quantized, Vanilla
from fed_asi.training.at_once import at_once
from fed_asi.training.sgd import Sgd


class Block(nn.Module):
    """Three convolutions with a way around them, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide = nn.Conv2d(8, 16, 1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.thin = nn.Conv2d(16, 8, 1)
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        x = x + self.thin(self.relu(self.deep(self.wide(x))))
        return self.head(x.mean((2, 3)))


NAMES = ("stem", "wide", "deep", "thin", "head")
FORMS: tuple[Method, ...] = (Frozen(), BiasOnly(), Vanilla(), Quantized(8), ASI((1, 2, 2, 2)))
HOW = {
    "layer": {"gradients": "applied", "mover": partial(at_once, clip_norm=1.0)},
    "accumulated": {"gradients": "accumulated", "optimizer": partial(Sgd, clip_norm=1.0)},
    "held": {"gradients": "held", "optimizer": partial(Sgd, clip_norm=1.0)},
}


@cache
def network() -> tuple[nn.Module, Graph]:
    """The network and its graph, analysed once."""
    torch.manual_seed(0)
    net = Block().train()
    return net, analyse(net)


@cache
def traced(forms: tuple[Method, ...], how: str, first: int = 0) -> Trace:
    net, graph = network()
    compress_known_(net, graph, dict(zip(NAMES[first:], forms[first:], strict=True)))
    return record_step(net, torch.randn(1, 3, 6, 6), torch.tensor([1]), **HOW[how])


MIXES = [*itertools.product(FORMS[1:], FORMS, FORMS, FORMS)]
MANY = (pytest.mark.slow, pytest.mark.computes)


@pytest.mark.few(1)
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "mixes", [MIXES[3::239], pytest.param(MIXES[3::29], marks=MANY)], ids=["few", "many"]
)
def test_the_sum_is_the_most_alive_in_every_mix_of_forms(how: str, mixes: list[tuple[Method, ...]]) -> None:
    """Shares come from the steps in which all layers take one form; the mixes are other ones."""
    known = {form: shares(traced((form,) * 4 + (Vanilla(),), how), NAMES) for form in FORMS[1:]}
    frozen = shares(traced((Vanilla(), Frozen(), Frozen(), Frozen(), Vanilla()), how), NAMES)
    known[FORMS[0]] = frozen
    assert len(mixes) > 2
    for mix in mixes:
        layers = (*(known[form].layers[i] for i, form in enumerate(mix)), frozen.layers[4])
        expected = most_alive(Shares(frozen.before, layers, 0, frozen.around))
        bound, _ = lower_bound(lifetimes(traced((*mix, Vanilla()), how)))
        assert expected == bound, mix


@pytest.mark.parametrize("first", range(1, 5))
def test_layers_before_the_first_that_trains_run_forward_alone(first: int) -> None:
    trace = traced((Quantized(8),) * 4 + (Vanilla(),), "layer", first)
    found = shares(trace, NAMES)
    assert all(one.saved == one.backward == one.held == 0 for one in found.layers[:first])
    assert most_alive(found) == lower_bound(lifetimes(trace))[0]


def test_by_hand() -> None:
    layers = (
        Share(saved=10, forward=20, backward=25, passes=7),
        Share(saved=5, held=3, inside=30, backward=30),
    )
    assert most_alive(Shares(0, layers, 0, (-1, -1))) == 40
    assert (
        most_alive(Shares(0, layers, 0, (-1, 0))) == 47
    )  # the first layer's input passes by the second's forward
    assert most_alive(Shares(50, layers, 0, (-1, -1))) == 50
    assert most_alive(Shares(0, (Share(backward=9), Share(held=40, backward=41)), 2, (-1, -1))) == 49


def test_static_bytes_are_the_layers_own() -> None:
    found = shares(traced((ASI((1, 2, 2, 2)), BiasOnly(), BiasOnly(), BiasOnly(), Vanilla()), "layer"), NAMES)
    assert found.layers[0].factors > 0
    assert [one.factors for one in found.layers[1:]] == [0] * 4
