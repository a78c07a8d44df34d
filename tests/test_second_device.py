"""The tests' second device is as strict as a GPU: what would fail or wait there fails or is reported here."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from second_device import PLACE, Elsewhere, HostWaitsError, MixedDevicesError, numbers_of, second_device


def test_numbers_are_those_of_the_cpu_to_the_bit_forward_and_backward():
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
        torch.randn(2, 3, 5, 5),
    )
    net(x).square().mean().backward()
    wanted = [parameter.grad for parameter in net.parameters()]
    with second_device() as device:
        net.zero_grad()
        net.to(device.place)
        net[1].reset_running_stats()
        net(x.to(device.place)).square().mean().backward()
        found = [parameter.grad for parameter in net.parameters()]
        assert all(isinstance(one, Elsewhere) and one.device == PLACE for one in found)
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(numbers_of(one), other)


WAITS: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda x: x.sum().item(),
    "a truth": lambda x: bool((x > 0).all()),
    "a list": lambda x: x.tolist(),
    "a copy": lambda x: x.cpu(),
    "places of a mask": lambda x: x[x > 0],
    "what is not zero": lambda x: x.nonzero(),
    "a mask written through": lambda x: x.__setitem__(x > 0, 0.0),
    "equality": lambda x: torch.equal(x, x),
    "eigenvalues": lambda x: torch.linalg.eigh(x @ x.mT),
    "a copy there": lambda x: x.add_(torch.ones(3, 3).to(PLACE)),
    "a copy into": lambda x: x.copy_(torch.ones(3, 3)),
    "places on the CPU": lambda x: x[torch.tensor([0, 1])],
}


@pytest.mark.parametrize("what", WAITS)
def test_what_a_host_waits_for_is_told(what):
    with second_device() as device:
        x = torch.ones(3, 3).to(device.place)
        before = len(device.waits)
        WAITS[what](x)
        assert len(device.waits) > before
        with pytest.raises(HostWaitsError), device.unattended():
            WAITS[what](x)


FREE: dict[str, Callable[[Tensor], object]] = {
    "a product": lambda x: x @ x.mT + 1.0,
    "a decomposition": torch.linalg.qr,
    "places there": lambda x: x[torch.arange(2, device=PLACE)],
    "a slice": lambda x: x[1:].clone(),
    "zeros": lambda x: x + torch.zeros(3, 3, device=PLACE),
    "a copy that takes its turn": lambda x: x + torch.ones(3, 3).to(PLACE, non_blocking=True),
    "a number of the CPU": lambda x: x * torch.tensor(2.0),
}


@pytest.mark.parametrize("what", FREE)
def test_what_takes_its_turn_makes_nobody_wait(what):
    with second_device() as device:
        x = torch.ones(3, 3).to(device.place)
        with device.unattended():
            FREE[what](x)


MIXED: dict[str, Callable[[Tensor], object]] = {
    "a sum": lambda x: x + torch.ones(3, 3),
    "a product": lambda x: torch.ones(3, 3) @ x,
    "a choice": lambda x: x.index_select(0, torch.tensor([0])),
    "a scalar written": lambda x: torch.zeros(()).add_(x.sum()),
}


@pytest.mark.parametrize("what", MIXED)
def test_tensors_of_both_devices_are_refused(what):
    with second_device() as device:
        x = torch.ones(3, 3).to(device.place)
        with pytest.raises(MixedDevicesError, match="Expected all tensors to be on the same device"):
            MIXED[what](x)


def test_it_has_no_numpy_arrays_and_views_share_their_storage():
    with second_device() as device:
        x = torch.arange(6.0).to(device.place)
        with pytest.raises((TypeError, RuntimeError)):
            x.numpy()
        half = x[:3]
        assert half.untyped_storage().nbytes() == x.untyped_storage().nbytes() == 24
        half.mul_(2.0)
        assert numbers_of(x).tolist() == [0, 2, 4, 3, 4, 5]
