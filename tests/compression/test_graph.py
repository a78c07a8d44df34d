"""Pairs, fusions and pools found from the data flow of hand-made and real networks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fed_asi import models
from fed_asi.compression.graph import analyse


class Net(nn.Module):
    """a -> bn_a -> act_a, a residual on b, c twice, d pooled behind bn_d."""

    def __init__(self, pool: str = "module") -> None:
        super().__init__()
        self.a, self.bn_a, self.act_a = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU6()
        self.b, self.bn_b, self.shared = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU()
        self.c = nn.Conv2d(4, 4, 1)
        self.d, self.bn_d = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.kind = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.act_a(self.bn_a(self.a(x)))
        y = self.b(x)
        x = self.shared(x + self.bn_b(y) + y)
        x = self.shared(self.c(self.c(x)))
        x = self.bn_d(self.d(x))
        if self.kind == "module":
            return torch.flatten(self.pool(x), 1)
        if self.kind == "mean":
            return x.mean([2, 3])
        if self.kind == "ints":
            return x.mean(2, 3)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


@pytest.mark.parametrize("pool", ["module", "mean", "ints", "function"])
def test_pairs_need_single_users_and_single_calls(pool: str) -> None:
    graph = analyse(Net(pool))
    assert graph.reason is None
    assert graph.norms == {"a": "bn_a", "b": "bn_b", "d": "bn_d"}
    assert graph.fusable == {"a": ("bn_a", "act_a"), "bn_a": ("act_a",), "d": ("bn_d",)}
    assert graph.pooled == {"d": ("bn_d", "pool") if pool == "module" else ("bn_d",)}
    assert graph.repeated == {"c", "shared"}
    assert graph.order[:4] == ("a", "bn_a", "act_a", "b")


def test_a_traced_module_and_its_graph_module_say_the_same() -> None:
    model = Net()
    assert analyse(fx.symbolic_trace(model)) == analyse(model)


class Stubborn(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def test_what_cannot_be_traced_is_paired_by_order_with_the_reason() -> None:
    graph = analyse(Stubborn())
    assert graph.reason is not None
    assert "TraceError" in graph.reason
    assert graph.fusable == {}
    assert graph.norms == {"a": "bn_a", "b": "bn_b", "d": "bn_d"}


def test_mcunet_fuses_every_convolution_and_pools_the_last() -> None:
    graph = analyse(models.build("mcunet", 10))
    assert len(graph.norms) == 42
    assert sum(name.endswith(".conv") for name in graph.fusable) == 42
    assert graph.fusable["blocks.13.depth_conv.conv"] == (
        "blocks.13.depth_conv.bn",
        "blocks.13.depth_conv.act",
    )
    assert list(graph.pooled) == ["blocks.13.point_linear.conv"]


def test_resnet_keeps_its_shared_relu_apart() -> None:
    graph = analyse(models.build("resnet18", 10))
    assert graph.fusable["layer4.1.conv1"] == ("layer4.1.bn1",)
    assert "layer4.1.relu" in graph.repeated
    assert graph.fusable["conv1"] == ("bn1", "relu")


class Accompanied(nn.Module):
    """Another thread runs another network while this one is traced."""

    def __init__(self, other: nn.Module) -> None:
        super().__init__()
        self.own, self.seen = nn.Conv2d(3, 4, 1), list[Tensor]()
        self._run = lambda: other(torch.ones(2, 3))  # not a module of this network

    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as pool:
            self.seen.append(pool.submit(self._run).result())
        return self.own(x)


def test_a_trace_leaves_other_threads_alone() -> None:
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    model = Accompanied(other)
    found = analyse(model)
    assert found.reason is None
    assert found.order == ("own",)
    assert [tuple(one.shape) for one in model.seen] == [(2, 4)] * 2
    assert all(torch.equal(one, other(torch.ones(2, 3))) for one in model.seen)
