"""Pooling against torch's, in every supported geometry; maxima need few bits, means none."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fed_asi import layers
from fed_asi.errors import UnsupportedLayerError
from fed_asi.memory.meter import ActivationMeter
from fed_asi.methods import Frozen


def swapped(module: nn.Module) -> nn.Module:
    layers.attach_(module, layers.LayerState("pool", Frozen(), type(module)))
    return module


def gradient(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, int]:
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with ActivationMeter(module) as meter:
        y = module(x)
    y.backward(torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape))
    return y.detach(), x.grad, meter.saved_bytes


@st.composite
def max_pools(draw: st.DrawFn) -> tuple[dict[str, object], Tensor]:
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    stride = draw(st.sampled_from([None, 1, (2, 1), 3]))
    shape = (*draw(st.sampled_from([(2, 3), (3,)])), draw(st.integers(7, 10)), draw(st.integers(7, 10)))
    x = torch.randn(
        shape, dtype=torch.float64, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))
    )
    if draw(st.booleans()):
        x = x.round()  # ties
    if len(shape) == 4 and draw(st.booleans()):
        x = x.contiguous(memory_format=torch.channels_last)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": draw(st.booleans())}
    return {"kernel_size": kernel, **options}, x


@settings(max_examples=80, deadline=None)
@given(max_pools())
def test_max_pooling_is_exact_in_the_fewest_bits(case: tuple[dict[str, object], Tensor]) -> None:
    options, x = case
    expected = gradient(nn.MaxPool2d(**options), x)
    ours = swapped(nn.MaxPool2d(**options))
    found = gradient(ours, x)
    assert torch.equal(found[0], expected[0])
    assert torch.allclose(found[1], expected[1], rtol=0, atol=1e-14)
    kernel = options["kernel_size"]
    places = kernel[0] * kernel[1]  # type: ignore[index]
    bits = next(width for width in (1, 2, 4, 8) if 2**width >= places)
    kind = layers.kind_of(ours)
    assert kind is not None
    assert found[2] == -(-found[0].numel() * bits // 8) == kind.saved_bytes(ours, Frozen(), x.shape)


def test_a_window_of_many_places_takes_two_bytes() -> None:
    x = torch.randn(1, 1, 40, 40)
    expected, found = gradient(nn.MaxPool2d(20), x), gradient(swapped(nn.MaxPool2d(20)), x)
    assert torch.equal(found[1], expected[1])
    assert found[2] == 4 * 2


MEANS = [
    lambda: nn.AvgPool2d(2),
    lambda: nn.AvgPool2d((3, 2), stride=(1, 2), padding=1, count_include_pad=False, ceil_mode=True),
    lambda: nn.AvgPool2d(3, divisor_override=2),
    lambda: nn.AdaptiveAvgPool2d(1),
    lambda: nn.AdaptiveAvgPool2d((1, 1)),
    lambda: nn.AdaptiveAvgPool2d((3, 2)),
    lambda: nn.AdaptiveAvgPool2d((None, 2)),
]


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("number", range(len(MEANS)))
def test_means_are_exact_and_keep_nothing(number: int, last: bool) -> None:
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected, found = gradient(MEANS[number](), x), gradient(swapped(MEANS[number]()), x)
    assert torch.allclose(found[0], expected[0], rtol=1e-14, atol=1e-15)
    assert torch.allclose(found[1], expected[1], rtol=1e-14, atol=1e-15)
    assert found[2] == 0


def test_the_mean_of_all_pixels_sends_back_a_view() -> None:
    x = torch.randn(2, 3, 7, 5, requires_grad=True)
    seen: list[Tensor] = []
    y = x * 1
    y.register_hook(seen.append)
    swapped(nn.AdaptiveAvgPool2d(1))(y).sum().backward()
    assert seen[0].untyped_storage().nbytes() == 2 * 3 * 4


def test_poolings_without_a_form_are_refused_and_plain_inference_is_torchs() -> None:
    with pytest.raises(UnsupportedLayerError, match="returns its indices"):
        swapped(nn.MaxPool2d(2, return_indices=True))
    with pytest.raises(UnsupportedLayerError, match="32768 places"):
        swapped(nn.MaxPool2d(200))
    x = torch.randn(1, 2, 8, 8)
    for make in (lambda: nn.MaxPool2d(3, 2), *MEANS[:4]):
        assert torch.equal(swapped(make())(x), make()(x))
