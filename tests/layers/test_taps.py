"""Convolutions of maps smaller than their kernel, against torch's own in float64: the same, from fewer taps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fed_asi.compression.compress import compress_
from fed_asi.layers.base import LayerState, attach_
from fed_asi.layers.conv import operation_of
from fed_asi.layers.operation import WholeGradient
from fed_asi.layers.taps import OnePixel, SomeTaps, TapsGradient
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import GradientFilter, Method, Vanilla
from fed_asi.methods.forms import Whole
from fed_asi.training.at_once import AtOnce
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import Stepper, training_mode_
from strategies import seeded

# Kind, size of the map, options, taps used along each axis, and whether one pixel comes out.
CASES: list[tuple[type[nn.Module], tuple[int, ...], dict[str, Any], tuple[slice, ...], bool]] = [
    (nn.Conv2d, (1, 1), {"kernel_size": 3, "padding": 1}, (slice(1, 2), slice(1, 2)), True),
    (nn.Conv2d, (2, 2), {"kernel_size": 3, "padding": 1, "stride": 2}, (slice(1, 3), slice(1, 3)), True),
    (nn.Conv2d, (2, 2), {"kernel_size": 5, "padding": 2}, (slice(1, 4), slice(1, 4)), False),
    (nn.Conv2d, (1, 4), {"kernel_size": 3, "padding": 1}, (slice(1, 2), slice(0, 3)), False),
    (nn.Conv2d, (2, 1), {"kernel_size": (3, 5), "padding": "same"}, (slice(0, 3), slice(2, 3)), False),
    (nn.Conv2d, (2, 2), {"kernel_size": 3, "padding": 2, "dilation": 2}, (slice(1, 2), slice(1, 2)), False),
    (nn.Conv2d, (1, 1), {"kernel_size": 3, "padding": 3, "dilation": 2}, (slice(1, 2), slice(1, 2)), False),
    (nn.Conv1d, (1,), {"kernel_size": 4, "padding": 2}, (slice(1, 3),), False),
    (nn.Conv3d, (1, 2, 1), {"kernel_size": 3, "padding": 1}, (slice(1, 2), slice(0, 3), slice(1, 2)), False),
]


def layer_of(conv: nn.Module, method: Method | None = None) -> nn.Module:
    layer = copy.deepcopy(conv)
    attach_(layer, LayerState("layer", method or Vanilla(), type(layer)))
    return layer


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kind", "size", "options", "taps", "one"), CASES)
def test_outputs_and_gradients_are_torchs(
    kind: Any,
    size: tuple[int, ...],
    options: dict[str, Any],
    taps: Any,
    one: bool,
    layout: torch.memory_format,
) -> None:
    conv = kind(3, 5, **options).double()
    x = seeded(4, 3, *size)
    x = x.to(memory_format=layout) if len(size) == 2 else x
    layer, ours, theirs = layer_of(conv), x.clone().requires_grad_(), x.clone().requires_grad_()
    found = operation_of(layer, ours)
    assert isinstance(found, SomeTaps)
    assert found.places[2:] == taps
    assert isinstance(found.inner, OnePixel) is one
    y, exact = layer(ours), conv(theirs)
    g = seeded(*exact.shape, seed=1)
    y.backward(g)
    exact.backward(g)
    torch.testing.assert_close(y, exact)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(layer.weight.grad, conv.weight.grad)
    torch.testing.assert_close(layer.bias.grad, conv.bias.grad)


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv2d(4, 4, 3, padding=1), (2, 2)),  # all taps read a pixel
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), (1, 1)),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), (1, 1)),
        (nn.ConvTranspose2d(4, 4, 3, padding=1), (1, 1)),
        (nn.Conv2d(4, 4, 1), (1, 1)),
        (
            nn.Conv2d(4, 4, 3, padding=2, dilation=3),
            (3, 3),
        ),  # the tap that is left would need a negative padding
    ],
    ids=str,
)
def test_others_are_left_as_they_are(conv: nn.Module, size: tuple[int, int]) -> None:
    assert not isinstance(operation_of(layer_of(conv), seeded(1, 4, *size)), SomeTaps)


def test_a_method_with_gradients_of_its_own_keeps_them() -> None:
    layer = layer_of(nn.Conv2d(3, 3, 3, padding=1), GradientFilter(2))
    assert not isinstance(operation_of(layer, seeded(1, 3, 1, 1)), SomeTaps)


def test_a_sparse_gradient_is_its_whole_one() -> None:
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1).double()
    x, g, weight = seeded(4, 3, 2, 2), seeded(4, 5, 1, 1, seed=1), conv.weight.detach()
    operation = operation_of(layer_of(conv), x)

    def found() -> TapsGradient:
        gradient = operation.gradient(Whole((x,)), g, weight, thin=False, own=False)
        assert isinstance(gradient, TapsGradient)
        return gradient

    whole = WholeGradient(operation, found().whole())
    assert int((whole.dw != 0).sum()) == 4 * 3 * 5
    torch.testing.assert_close(found().products(weight), whole.products(weight))
    torch.testing.assert_close(found().squared_norm(), whole.squared_norm())
    torch.testing.assert_close(found().respond(seeded(3)), whole.respond(seeded(3)))
    for change in (lambda one: one.scale_(seeded(5, seed=2)), lambda one: one.multiply_(torch.tensor(3.0))):
        ours, theirs = found(), WholeGradient(operation, found().whole())
        change(ours)
        change(theirs)
        torch.testing.assert_close(ours.whole(), theirs.whole())
    ours, theirs = weight.clone(), weight.clone()
    found().add_to_(ours, -0.5)
    whole.add_to_(theirs, -0.5)
    assert torch.equal(ours, theirs)
    ((rows, block),) = found().blocks()
    assert torch.equal(block, whole.dw[rows])


class Net(nn.Module):
    """Two convolutions of maps smaller than their kernels, with their norms, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.relu, self.head = nn.ReLU(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv1(x)))
        return self.head(self.relu(self.norm2(self.conv2(x))).flatten(1))


def steps(holds: bool, micro_batch: int, **options: Any) -> dict[str, Tensor]:
    """Return the weights after three steps. holds: whether sparse gradients may be held as they are."""
    torch.manual_seed(0)
    net, x, y = Net().eval(), seeded(6, 3, 2, 2).float(), torch.arange(6) % 4
    compress_(net, Vanilla(), seed=0)
    training_mode_(net)
    optimizer = Sgd(net.named_parameters(), **options)
    if not holds:
        optimizer.hold_sparse_ = lambda *_: False
    stepper = Stepper(net, optimizer, micro_batch=micro_batch, budget_bytes=None, side_by_side=False)
    for _ in range(3):
        stepper.step_(x, y, 0.1)
    return {name: parameter.detach().clone() for name, parameter in net.named_parameters()}


@pytest.mark.parametrize("micro_batch", [6, 2])
def test_steps_with_gradients_held_sparse_have_the_bits_of_whole_ones(micro_batch: int) -> None:
    ours, theirs = steps(True, micro_batch), steps(False, micro_batch)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_clipped_steps_agree_to_rounding() -> None:
    ours, theirs = steps(True, 2, clip_norm=0.1), steps(False, 2, clip_norm=0.1)
    for name, exact in theirs.items():
        torch.testing.assert_close(ours[name], exact)


@pytest.mark.parametrize("options", [{"momentum": 0.9}, {"weight_decay": 0.1}])
def test_where_a_step_adds_more_gradients_are_whole(options: dict[str, float]) -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1).double()
    gradient = operation_of(layer_of(conv), seeded(2, 3, 1, 1)).gradient(
        Whole((seeded(2, 3, 1, 1),)), seeded(2, 5, 1, 1), conv.weight.detach(), thin=False, own=False
    )
    assert Sgd(conv.named_parameters()).hold_sparse_("weight", gradient, conv.weight)
    assert not Sgd(conv.named_parameters(), **options).hold_sparse_("weight", gradient, conv.weight)
    assert not AtOnce(conv, Sgd(conv.named_parameters())).holds(conv.weight, gradient)


def test_the_same_bytes_are_kept() -> None:
    conv = layer_of(nn.Conv2d(3, 5, 3, padding=1))
    x = seeded(4, 3, 1, 1).float()
    with ActivationMeter(conv) as meter:
        y = conv(x)
    assert meter.saved_bytes == x.nbytes
    assert y.shape == (4, 5, 1, 1)


def test_a_small_map_takes_the_layout_of_its_weight() -> None:
    conv = nn.Conv2d(16, 16, 3, padding=1, bias=False)
    layer = layer_of(conv)
    small, large = (seeded(2, 16, n, n).float().to(memory_format=torch.channels_last) for n in (4, 16))
    assert layer(small).is_contiguous()
    assert layer(large).is_contiguous(memory_format=torch.channels_last)
    with ActivationMeter(layer) as meter:
        y = layer(small)
    assert meter.saved_bytes == small.nbytes  # the input itself, not a copy beside it
    y.sum().backward()
    assert layer.weight.grad.is_contiguous()
