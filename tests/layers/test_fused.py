"""Convolution, frozen batch norm and activation in one, against torch's own three modules in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from fed_asi import tucker
from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import LayerState, attach_, masks, state_of
from fed_asi.layers.fused import reason_not_fusable
from fed_asi.methods import ASI, BiasOnly, Frozen, GradientFilter, Method, Vanilla
from fed_asi.methods.asi import sequential

ACTS: list[nn.Module | None] = [None, nn.ReLU(), nn.ReLU6(), nn.Hardtanh(-0.5, 0.7), nn.LeakyReLU(0.1)]
METHODS: list[Method] = [Vanilla(), Vanilla(centered=True), ASI((4, 6, 5, 6)), BiasOnly(), Frozen()]


def blocks(act: nn.Module | None, options: dict[str, int], method: Method) -> tuple[nn.Module, nn.Sequential]:
    """A compressed convolution that computes its norm and act, and torch's own."""
    generator = torch.Generator().manual_seed(4)
    conv = nn.Conv2d(6, 6, **options).double()
    norm = nn.BatchNorm2d(6).double().eval()
    for tensor in (*conv.parameters(), *norm.parameters(), norm.running_mean):
        tensor.data.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2.0, generator=generator)
    for module in (conv, norm):
        module.weight.requires_grad_(method.trains_weight)
        module.bias.requires_grad_(method.trains_bias)
    fused = (norm,) if act is None else (norm, copy.deepcopy(act))
    plain = copy.deepcopy(nn.Sequential(conv, *fused))
    attach_(conv, LayerState("layer", method, nn.Conv2d, fused=fused, mean=torch.zeros(6).double()))
    return conv, plain


def check(ours: Tensor | None, theirs: Tensor | None) -> None:
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.few(12)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1, "groups": 6},
        {"kernel_size": 3, "padding": 1, "groups": 6, "stride": 2},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 3, "dilation": 2, "groups": 2, "padding": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("turn", range(len(METHODS)))
def test_every_gradient_is_torchs(turn, options, layout):
    """Every method with every geometry; the activations take turns."""
    method, act = (
        METHODS[turn],
        ACTS[(turn + options.get("stride", 0) + options.get("groups", 1)) % len(ACTS)],
    )
    conv, plain = blocks(act, options, method)
    norm = state_of(conv).fused[0]
    x = torch.randn(4, 6, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    again = x.clone().requires_grad_()
    x = x.to(memory_format=layout).requires_grad_()
    y, expected = conv(x), plain(again)
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    y.backward(g)
    expected.backward(g)
    check(y.detach(), expected.detach())
    check(x.grad, again.grad)
    for ours, theirs in zip([*conv.parameters(), *norm.parameters()], plain.parameters(), strict=True):
        check(ours.grad, theirs.grad)
    conv.eval()
    check(conv(x).detach(), expected.detach())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("rank", [5, 40])
@pytest.mark.parametrize("kernel", [1, 3])
def test_gradients_are_those_of_the_restored_input_however_many_columns_they_have(kernel, rank, layout):
    """Below and above `conv.THIN`, and with more outputs than are turned at once."""
    generator = torch.Generator().manual_seed(4)
    conv = nn.Conv2d(48, 70, kernel, padding=kernel // 2, bias=False).double().to(memory_format=layout)
    norm = nn.BatchNorm2d(70).double().eval()
    for tensor in (conv.weight, *norm.parameters(), norm.running_mean):
        tensor.data.normal_(generator=generator)
    plain = copy.deepcopy(nn.Sequential(conv, norm))
    attach_(conv, LayerState("layer", ASI((3, rank, 3, 4)), nn.Conv2d, fused=(norm,)))
    x = torch.randn(4, 48, 5, 6, generator=generator, dtype=torch.double).to(memory_format=layout)
    y = conv(x)
    g = torch.randn(y.shape, generator=generator, dtype=torch.double)
    y.backward(g)
    restored = tucker.expand(*sequential(x.unsqueeze(0), (3, rank, 3, 4), [None] * 4, 0))[0]
    plain(restored).backward(g)
    check(conv.weight.grad, plain[0].weight.grad)
    check(norm.weight.grad, plain[1].weight.grad)
    assert conv.weight.grad.is_contiguous(memory_format=layout)


def test_a_centred_layer_trains_the_bias_for_the_mean():
    """First order in the step: y after it is that of training W on x - mu with W mu in the bias."""
    conv, plain = blocks(None, {"kernel_size": 1}, Vanilla(centered=True))
    norm, mean = state_of(conv).fused[0], torch.linspace(-1, 1, 6, dtype=torch.double)
    state_of(conv).mean = mean
    x = torch.randn(4, 6, 5, 5, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    conv(x).sin().sum().backward()
    scale = plain[1].weight / (plain[1].running_var + plain[1].eps).sqrt()
    weight, free = (
        plain[0].weight.detach().requires_grad_(),
        torch.zeros(6, dtype=torch.double, requires_grad=True),
    )
    shift = plain(x).detach() - nn.functional.conv2d(
        x - mean.view(1, -1, 1, 1), scale.view(-1, 1, 1, 1) * weight
    )
    z = nn.functional.conv2d(x - mean.view(1, -1, 1, 1), scale.view(-1, 1, 1, 1) * weight)
    (z + shift.detach() + free.view(1, -1, 1, 1)).sin().sum().backward()
    check(conv.weight.grad, weight.grad)
    folded = scale * (weight.grad.flatten(1) @ mean)
    check(norm.bias.grad, free.grad - folded)


def test_a_weight_that_would_not_train_is_an_error():
    conv, _ = blocks(None, {"kernel_size": 1}, BiasOnly())
    conv.weight.requires_grad_(True)
    with pytest.raises(UnsupportedLayerError, match="layer: method 'bias' keeps no input, so the weight"):
        conv(torch.randn(2, 6, 3, 3, dtype=torch.double))


def test_what_cannot_be_fused_is_said():
    assert reason_not_fusable([nn.BatchNorm2d(3), nn.ReLU()]) is None
    assert "without running statistics" in reason_not_fusable([nn.BatchNorm2d(3, track_running_stats=False)])
    assert "only (norm), (act) or (norm, act)" in reason_not_fusable([nn.ReLU(), nn.BatchNorm2d(3)])


@pytest.mark.parametrize("numel", [1, 7, 8, 9, 64, 1001])
def test_packed_bits_come_back(numel):
    bits = torch.rand(numel, generator=torch.Generator().manual_seed(numel)).round()
    packed = masks.pack(bits)
    assert packed.dtype == torch.uint8
    assert packed.numel() == masks.packed_bytes(numel) == -(-numel // 8)
    assert torch.equal(masks.unpack(packed, numel, torch.float32), bits)


def test_the_gradient_filter_by_hand():
    """One channel, 1x1, stride 1, patch 2 on 4x4: sums of dY times means of x; dX even over a patch."""
    conv = nn.Conv2d(1, 1, 1, bias=False).double()
    attach_(conv, LayerState("layer", GradientFilter(2), nn.Conv2d))
    x = torch.arange(16.0, dtype=torch.double).view(1, 1, 4, 4).requires_grad_()
    g = torch.zeros(1, 1, 4, 4, dtype=torch.double)
    g[0, 0, 0, 0], g[0, 0, 3, 3] = 4.0, 8.0
    conv(x).backward(g)
    assert conv.weight.grad.item() == 4.0 * (0 + 1 + 4 + 5) / 4 + 8.0 * (10 + 11 + 14 + 15) / 4
    w = conv.weight.item()
    assert torch.allclose(x.grad[0, 0, :2, :2], torch.full((2, 2), w, dtype=torch.double))
    assert torch.allclose(x.grad[0, 0, 2:, 2:], torch.full((2, 2), 2 * w, dtype=torch.double))
    assert x.grad[0, 0, :2, 2:].abs().max() == 0


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_filter_of_one_pixel_on_a_pointwise_layer_is_exact(groups):
    conv = nn.Conv2d(6, 6, 1, groups=groups).double()
    plain = copy.deepcopy(conv)
    attach_(conv, LayerState("layer", GradientFilter(1), nn.Conv2d))
    x = torch.randn(2, 6, 5, 4, dtype=torch.double, requires_grad=True)
    again = x.detach().clone().requires_grad_()
    conv(x).square().sum().backward()
    plain(again).square().sum().backward()
    check(x.grad, again.grad)
    check(conv.weight.grad, plain.weight.grad)
    check(conv.bias.grad, plain.bias.grad)
