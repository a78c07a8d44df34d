"""Remembering what follows from frozen numbers changes no result, and ends when they change."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi import layers
from fed_asi.compression.compress import compress_
from fed_asi.layers.constants import Constants
from fed_asi.memory.arena.planned import laid_out
from fed_asi.memory.arena.step import record_step
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import ASI, BiasOnly, Channels, Method, Vanilla
from strategies import seeded


def network() -> nn.Module:
    """Norms folded into the weight, and into the output where that is smaller, as behind the first pool."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.BatchNorm2d(6), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(2), nn.Conv2d(6, 40, 1, bias=False), nn.BatchNorm2d(40), nn.ReLU(),
        nn.Flatten(), nn.Linear(160, 3),
    )  # fmt: skip
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    return net.eval()


def compressed(method: Method) -> nn.Module:
    net = network()
    asked = {"0": method, "3": method, "7": method, "11": Vanilla()}
    compress_(net, asked, energies={"0": torch.rand(4), "3": torch.rand(6), "7": torch.rand(6)})
    return net


def trained(net: nn.Module, x: Tensor) -> tuple[int, list[Tensor]]:
    """Return the bytes that a step keeps, and all parameters after it."""
    with ActivationMeter(net) as meter:
        loss = F.cross_entropy(net(x), torch.ones(len(x), dtype=torch.long))
    loss.backward()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad)
                parameter.grad = None
    return meter.saved_bytes, [p.detach().clone() for p in net.parameters()]


@pytest.mark.parametrize("method", [BiasOnly(), Channels(2), Vanilla()], ids=str)
def test_steps_have_the_same_bits_and_keep_the_same_bytes(method: Method) -> None:
    plain, quick = compressed(method), compressed(method)
    layers.remember_constants_(quick)
    for seed in range(3):
        x = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(seed))
        x = x.to(
            memory_format=torch.channels_last
        )  # others are computed so too, and may differ in their last bits
        (ours, after), (theirs, expected) = trained(quick, x), trained(plain, x)
        assert ours == theirs
        assert all(map(torch.equal, after, expected))


@pytest.mark.parametrize("micro_batch", [1, 2, 4])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_large_kernels_and_any_layout_agree_to_rounding_and_keep_the_same_bytes(
    layout: torch.memory_format, micro_batch: int
) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
        nn.Conv2d(12, 12, 5, padding=2, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6(),
        nn.Conv2d(12, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).double().eval()  # fmt: skip
    plain, quick = net, copy.deepcopy(net)
    for one in (plain, quick):
        method = ASI((2, 3, 3, 3))
        compress_(one, {"0": method, "3": method, "6": Vanilla(), "9": Vanilla()}, micro_batch=micro_batch)
    layers.remember_constants_(quick)
    for seed in range(3):
        x = seeded(4, 4, 4, 4, seed=seed).to(memory_format=layout)
        (ours, after), (theirs, expected) = trained(quick, x), trained(plain, x)
        assert ours == theirs
        for one, other in zip(after, expected, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("size", [1, 5])
def test_what_was_made_of_numbers_that_have_changed_is_made_anew(size: int) -> None:
    plain, quick = compressed(BiasOnly()), compressed(BiasOnly())
    layers.remember_constants_(quick)
    for net in (quick, plain):
        trained(net, torch.ones(1, 4, 5, 5).to(memory_format=torch.channels_last))
    for net in (plain, quick):
        with torch.no_grad():
            for tensor in (*net.parameters(), *net.buffers()):
                tensor.mul_(2)
    x = torch.ones(1, 4, size, size).to(memory_format=torch.channels_last)
    after, expected = (trained(net, x)[1] for net in (quick, plain))
    assert all(map(torch.equal, after, expected))


def test_a_copy_remembers_nothing_and_a_device_is_counted_as_before() -> None:
    plain, quick = compressed(BiasOnly()), compressed(BiasOnly())
    layers.remember_constants_(quick)
    x, y = torch.randn(1, 4, 5, 5), torch.tensor([1])
    trained(quick, x)
    for one in (copy.deepcopy(quick), pickle.loads(pickle.dumps(quick))):
        assert all(state.constants is None for _, _, state in layers.compressed_layers(one))
    ours, theirs = (laid_out(record_step(net, x, y)) for net in (quick, plain))
    assert (ours.bytes, ours.constant_bytes) == (theirs.bytes, theirs.constant_bytes)


def test_constants_are_made_once_for_the_same_tensors() -> None:
    constants, made = Constants(), []
    one, other = torch.ones(2), torch.ones(2)

    def make() -> int:
        made.append(1)
        return len(made)

    assert [constants.of("sum", (one, None), make) for _ in range(2)] == [1, 1]
    assert constants.newest("sum") == 1
    one.add_(1)
    assert constants.of("sum", (one, None), make) == 2
    assert constants.of("sum", (other, None), make) == 3
    constants.forget("sum")
    assert constants.newest("sum") is None
