"""Two-slope activations give torch's gradients from one bit; smooth ones state their error."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fed_asi import layers
from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers.activation import SLOPES, SmoothKind, slope_error
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import Frozen, Method, Quantized

EXACT = {
    "relu": nn.ReLU,
    "relu_": lambda: nn.ReLU(inplace=True),
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hardtanh": lambda: nn.Hardtanh(-0.5, 1.5),
    "leaky": lambda: nn.LeakyReLU(0.1),
    "leaky0": lambda: nn.LeakyReLU(0.0),
    "hardsigmoid": nn.Hardsigmoid,
}
SMOOTH = {cls.__name__: cls for cls in SLOPES}


def swap_(module: nn.Module, method: object = None) -> nn.Module:
    layers.attach_(module, layers.LayerState("act", method or Frozen(), type(module)))  # type: ignore[arg-type]
    return module


def gradient(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = module(x * 1.0)  # an in-place activation may not write into a leaf
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    (g,) = torch.autograd.grad((y * weights).sum(), x)
    return y.detach(), g


@pytest.mark.few(3)
@pytest.mark.parametrize("name", EXACT)
@settings(max_examples=25, deadline=None)
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=5), seed=st.integers(0, 99), last=st.booleans())
def test_one_bit_is_exact(name: str, shape: list[int], seed: int, last: bool) -> None:
    x = 4 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x.view(-1)[::3] = x.view(-1)[::3].round()  # on the kinks too: 0, 3, 6
    if last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = gradient(EXACT[name](), x)
    found = gradient(swap_(EXACT[name]()), x)
    assert torch.equal(found[0], expected[0])
    assert torch.allclose(found[1], expected[1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", EXACT)
def test_one_bit_an_element_is_kept_and_predicted(name: str) -> None:
    module = swap_(EXACT[name]())
    x = torch.randn(3, 5, 7, 3, requires_grad=True)
    with ActivationMeter(module) as meter:
        y = module(x + 0)
    kind = layers.kind_of(module)
    assert kind is not None
    assert y.requires_grad
    assert meter.saved_bytes == -(-3 * 5 * 7 * 3 // 8) == kind.saved_bytes(module, Frozen(), x.shape)


def test_a_gradient_that_is_one_number_over_space_meets_every_bit() -> None:
    layer = swap_(nn.ReLU6())
    for layout in (torch.contiguous_format, torch.channels_last):
        x = (torch.randn(3, 5, 4, 4) * 4).to(memory_format=layout).requires_grad_()
        again = x.detach().clone().requires_grad_()
        spread = torch.randn(3, 5, 1, 1).expand(3, 5, 4, 4)
        layer(x).backward(spread)
        nn.ReLU6()(again).backward(spread)
        assert torch.equal(x.grad, again.grad)


def test_the_gradient_of_a_gradient_is_torchs() -> None:
    layer = swap_(nn.ReLU())
    results = []
    for module in (layer, nn.ReLU()):
        x = torch.linspace(-1, 1, 12).view(1, 3, 2, 2).requires_grad_()
        (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
        results.append(second)
    assert torch.equal(*results)


def test_a_gradient_in_another_memory_order_meets_its_own_bits() -> None:
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    weights = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    grads = []
    for module in (nn.ReLU(), swap_(nn.ReLU())):
        leaf = x.clone().requires_grad_()
        module(leaf).backward(weights)
        grads.append(leaf.grad)
    assert torch.equal(grads[0], grads[1])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_slopes_are_off_by_no_more_than_said(name: str, bits: int) -> None:
    x = torch.linspace(-8, 8, 4001, dtype=torch.float64, requires_grad=True)
    y = SMOOTH[name]()(x)
    (exact,) = torch.autograd.grad(y.sum(), x)
    module = swap_(SMOOTH[name](), Quantized(bits))
    z = module(x)
    with ActivationMeter(module) as meter:
        z = module(x)
    (found,) = torch.autograd.grad(z.sum(), x)
    assert torch.equal(y, z)
    error = (found - exact).abs().max().item()
    assert error <= slope_error(module, bits) + 1e-12
    assert error > slope_error(module, bits) / 2  # the bound is not idle
    assert meter.saved_bytes == -(-4001 * bits // 8)
    kind = layers.kind_of(module)
    assert kind is not None
    assert meter.saved_bytes == kind.saved_bytes(module, Quantized(bits), (4001,))
    if bits == 8:
        assert slope_error(module, bits) < 0.004


def test_what_has_no_form_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedLayerError, match="act: exact, a smooth activation keeps its input"):
        swap_(nn.SiLU())
    with pytest.raises(UnsupportedLayerError, match="negative slope"):
        swap_(nn.LeakyReLU(-0.1))


def test_nothing_is_kept_and_in_place_stays_in_place_without_gradients() -> None:
    module = swap_(nn.ReLU(inplace=True))
    x = torch.tensor([-1.0, 2.0])
    with ActivationMeter(module) as meter:
        y = module(x)
    assert y.data_ptr() == x.data_ptr()
    assert meter.saved_bytes == 0


def test_any_method_may_say_in_how_many_bits_a_slope_is_kept() -> None:
    class Few(Method):
        slope_bits = 4

    kind = SmoothKind()
    assert kind.unsupported(nn.SiLU(), Few()) is None
    assert kind.saved_bytes(nn.SiLU(), Few(), (2, 3, 4, 4)) == 2 * 3 * 4 * 4 // 2
    assert "keeps its input" in str(kind.unsupported(nn.SiLU(), Method()))
