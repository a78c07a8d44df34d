"""A fixed batch norm is torch's in eval mode, with exact gradients, and keeps an input only for gamma."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fed_asi import layers
from fed_asi.errors import UnsupportedLayerError
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import Frozen, Vanilla

SHAPES = {nn.BatchNorm1d: (4, 3), nn.BatchNorm2d: (4, 3, 5, 2), nn.BatchNorm3d: (2, 3, 2, 3, 4)}


def made(cls: type[nn.Module], affine: bool = True) -> nn.Module:
    norm = cls(3, affine=affine, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        tensor.data.copy_(torch.rand(3, generator=generator, dtype=torch.float64) + 0.5)
    return norm


def fixed(norm: nn.Module) -> nn.Module:
    norm = copy.deepcopy(norm)
    layers.attach_(norm, layers.LayerState("norm", Frozen(), type(norm)))
    return norm


def gradients(norm: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    y = norm(x)
    y.backward(torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape))
    return [y.detach(), x.grad, *[p.grad for p in norm.parameters() if p.grad is not None]]


@pytest.mark.parametrize("trained", [(), ("bias",), ("weight",), ("weight", "bias")])
@pytest.mark.parametrize("cls", SHAPES)
def test_gradients_and_bytes_are_exact(cls: type[nn.Module], trained: tuple[str, ...]) -> None:
    norm = made(cls).eval()
    for name, parameter in norm.named_parameters():
        parameter.requires_grad_(name in trained)
    ours = fixed(norm).train()
    x = torch.randn(SHAPES[cls], dtype=torch.float64)
    expected, found = gradients(norm, x), gradients(ours, x)
    assert len(found) == len(expected) == 2 + len(trained)
    assert torch.equal(found[0], expected[0])
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(found, expected, strict=True))
    with ActivationMeter(ours) as meter:
        y = ours(x.clone().requires_grad_())
    kind = layers.kind_of(ours)
    assert kind is not None
    assert y.requires_grad
    assert meter.saved_bytes == ("weight" in trained) * x.nbytes
    assert meter.saved_bytes == kind.saved_bytes(ours, Vanilla(), x.shape, x.dtype)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 6)])
def test_training_mode_neither_uses_nor_changes_batch_statistics(shape: tuple[int, ...]) -> None:
    norm = made(nn.BatchNorm1d, affine=False)
    ours = fixed(norm).train()
    x = torch.randn(shape, dtype=torch.float64)
    before = copy.deepcopy(ours.state_dict())
    assert torch.equal(ours(x), norm.eval()(x))
    assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())
    with torch.no_grad():
        assert torch.equal(ours(x), norm(x))


def test_without_running_statistics_it_is_refused() -> None:
    with pytest.raises(UnsupportedLayerError, match="no running statistics"):
        fixed(nn.BatchNorm2d(3, track_running_stats=False))


def test_a_wrong_input_is_torchs_error() -> None:
    with pytest.raises(ValueError, match="expected 4D"):
        fixed(made(nn.BatchNorm2d))(torch.zeros(2, 3, dtype=torch.float64))
