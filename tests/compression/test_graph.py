"""Pairs, fusions and pools found from the data flow of hand-made and real networks."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fed_asi import models
from fed_asi.compression.graph import ThreadTracer, Tracer, analyse


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


class Held(nn.Module):
    """A network whose trace says when it has begun, and stays there until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.begun.set()
        self.goes_on.wait()
        return self.conv(x) * self.conv.weight.sum()


class Traced(threading.Thread):
    def __init__(self, network: nn.Module) -> None:
        super().__init__(daemon=True)
        self.network, self.graph = network, fx.Graph()

    def run(self) -> None:
        self.graph = Tracer().trace(self.network)


def test_other_threads_compute_while_one_traces() -> None:
    """Also with the very modules that are traced."""
    held = Held()
    other, x = fx.symbolic_trace(nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU())), torch.ones(1, 2, 4, 4)
    wanted, of_conv = other(x), held.conv(x)
    thread = Traced(held)
    thread.start()
    held.begun.wait()
    try:
        assert torch.equal(other(x), wanted)
        assert torch.equal(held.conv(x), of_conv)
        assert held.conv.weight is held.conv._parameters["weight"]
    finally:
        held.goes_on.set()
        thread.join()
    assert [str(node.target) for node in thread.graph.nodes if node.op == "call_module"] == ["conv"]


def test_one_thread_traces_at_a_time_and_leaves_nothing_behind() -> None:
    plain = nn.Module.__call__
    first, second = Held(), Held()
    threads = [Traced(first), Traced(second)]
    threads[0].start()
    first.begun.wait()
    threads[1].start()
    second.begun.wait(0.05)  # only what would be wrong needs any time
    assert not second.begun.is_set()
    first.goes_on.set()
    threads[0].join()
    second.goes_on.set()
    threads[1].join()
    assert nn.Module.__call__ is plain
    assert ThreadTracer().trace(nn.ReLU()).nodes
