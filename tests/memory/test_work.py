"""Work counted from shapes: its products equal those that `cost` counts by running, its sums those of the step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, fx, nn

from fed_asi import layers
from fed_asi.compression.compress import compress_, uncompress_
from fed_asi.compression.graph import Tracer, analyse
from fed_asi.memory.costs import cost
from fed_asi.memory.work import Network, Work, network_of, total
from fed_asi.methods import ASI, BiasOnly, Channels, GradientFilter, Method, Quantized, Vanilla
from fed_asi.training.sgd import Sgd


class Blocks(nn.Module):
    """A dense and a depthwise convolution, a residual, a pool and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU6()
        self.depth = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.depth_norm = nn.BatchNorm2d(8)
        self.wide = nn.Conv2d(8, 12, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm(self.first(x)))
        x = x + self.depth_norm(self.depth(x))
        return self.head(self.pool(self.wide(x)).flatten(1))


def traced(model: nn.Module) -> fx.GraphModule:
    return fx.GraphModule(model, Tracer().trace(model))


@pytest.fixture
def blocks() -> tuple[fx.GraphModule, Network]:
    model = traced(Blocks().eval())
    return model, network_of(model, torch.randn(1, 3, 6, 6), analyse(model).pooled)


ENERGIES = {"first": [1.0, 3.0, 2.0], "depth": [1.0] * 8, "wide": [1.0] * 8}
FORMS = [
    Vanilla(),
    BiasOnly(),
    Quantized(8),
    Channels(2),
    ASI((2, 3, 2, 2)),
    ASI((2, 3, 2, 2), warm=False),
    GradientFilter(2),
]


@pytest.mark.parametrize("method", FORMS, ids=str)
@pytest.mark.parametrize("trained", [("depth", "head"), ("first", "wide", "head")])
def test_the_products_are_those_that_are_counted_by_running(
    blocks: tuple[fx.GraphModule, Network], method: Method, trained: tuple[str, ...]
) -> None:
    model, network = blocks
    methods = {name: Vanilla() if name == "head" else method for name in trained}
    compress_(model, methods, seed=0, energies=ENERGIES)
    expected = cost(model, torch.randn(4, 3, 6, 6)).step_macs
    uncompress_(model)
    assert network.step(4, methods).macs == expected


@pytest.mark.parametrize("method", [*FORMS[:3], Channels(2), Channels(1, 8)], ids=str)
@pytest.mark.parametrize("name", ["first", "depth"])
def test_what_trains_is_what_an_optimizer_gets(
    blocks: tuple[fx.GraphModule, Network], method: Method, name: str
) -> None:
    model, network = blocks
    methods = {name: method, "head": Vanilla()}
    compress_(model, methods, seed=0, energies=ENERGIES)
    expected = Sgd(model.named_parameters(), slices=layers.slices_of(model)).gradient_bytes // 4
    uncompress_(model)
    assert network.trained_elements(methods) == expected


def test_a_forward_pass_by_hand(blocks: tuple[fx.GraphModule, Network]) -> None:
    _, network = blocks
    found = network.forward(2)
    assert found.depthwise_macs == 2 * 36 * 9 * 8
    assert found.dense_macs == 2 * (36 * 9 * 3 * 8 + 36 * 8 * 12 + 12 * 5)
    assert found.elements == 2 * (36 * 8 + 2 * 36 * 8 + 36 * 12)  # ReLU6, the sum's two inputs, the pool


def test_nothing_flows_back_where_nothing_before_trains(blocks: tuple[fx.GraphModule, Network]) -> None:
    _, network = blocks
    head = network.step(2, {"head": Vanilla()})
    assert head.depthwise_macs == network.forward(2).depthwise_macs
    assert network.step(2, {"first": BiasOnly()}).depthwise_macs == 2 * head.depthwise_macs  # and dX


def test_a_forward_done_twice_is_counted_twice_where_a_gradient_comes_through(
    blocks: tuple[fx.GraphModule, Network],
) -> None:
    _, network = blocks
    methods = {"depth": Vanilla(), "head": Vanilla()}
    once, twice = network.step(2, methods), network.step(2, methods, twice=True)
    frozen = 2 * 36 * 9 * 3 * 8  # of `first`, through which none comes
    pooled = 2 * 35 * 8 * 12  # `wide` runs on its input's mean where a gradient comes through
    assert twice.macs - once.macs == network.forward(2).macs - frozen - pooled


def test_a_batch_is_so_many_images_and_calls_do_not_grow_with_it(
    blocks: tuple[fx.GraphModule, Network],
) -> None:
    _, network = blocks
    one, eight = (network.step(size, {"wide": Vanilla(), "head": Vanilla()}) for size in (1, 8))
    assert (eight.macs, eight.elements, eight.calls) == (8 * one.macs, 8 * one.elements, one.calls)
    assert eight.moved_bytes < 8 * one.moved_bytes  # the weights are read once


def test_a_layer_before_a_pool_runs_on_the_mean_where_that_is_exact(
    blocks: tuple[fx.GraphModule, Network],
) -> None:
    _, network = blocks
    (layer,) = (one for one in network.layers if one.name == "wide")
    assert layer.pooled
    assert layer.sized(4, ASI((2, 3, 1, 1))).forward_macs * 36 == layer.sized(4, Vanilla()).forward_macs
    assert layer.sized(4, None) == layer.sized(4, Vanilla())  # without a gradient it is plain


def test_keeping_less_costs_more_work(blocks: tuple[fx.GraphModule, Network]) -> None:
    _, network = blocks
    plain = network.step(4, {"depth": Vanilla(), "head": Vanilla()})
    for method in (Quantized(8), Quantized(4), ASI((2, 3, 2, 2)), replace(ASI((2, 3, 2, 2)), bits=8)):
        assert network.step(4, {"depth": method, "head": Vanilla()}).calls > plain.calls
    cold, warm = (ASI((2, 3, 2, 2), warm=warm).keeping for warm in (False, True))
    size = network.layers[1].sized(4, Vanilla())
    assert cold(size, (2, 3, 2, 2)).calls > warm(size, (2, 3, 2, 2)).calls


def test_layers_whose_products_no_one_counts_are_named() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Bilinear(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.embed(x, x)

    assert network_of(traced(Odd()), torch.randn(1, 4)).uncounted == ("embed",)


def test_sums() -> None:
    assert total([Work(1, 2, 3, 4, 5), Work(10, 20, 30, 40, 50).times(2)]) == Work(21, 42, 63, 84, 105)
    assert total([]) == Work()
