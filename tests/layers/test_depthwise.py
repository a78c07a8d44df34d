"""The weight gradient of a depthwise convolution on a small map, against autograd's in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from fed_asi.layers import depthwise, thresholds
from fed_asi.layers.geometry import geometry_of
from strategies import seeded

GEOMETRIES: list[tuple[type[nn.Module], tuple[int, ...], dict[str, Any]]] = [
    (nn.Conv2d, (4, 4), {"kernel_size": 5, "padding": 2}),
    (nn.Conv2d, (8, 6), {"kernel_size": (3, 5), "stride": (2, 3), "padding": (1, 2)}),
    (nn.Conv2d, (7, 7), {"kernel_size": 3, "dilation": 2, "padding": 2, "stride": 2}),
    (nn.Conv2d, (5, 4), {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}),
    (nn.Conv2d, (5, 4), {"kernel_size": (2, 3), "padding": 1, "padding_mode": "circular"}),
    (nn.Conv1d, (9,), {"kernel_size": 4, "padding": 1}),
    (nn.Conv3d, (3, 2, 4), {"kernel_size": 3, "padding": 1}),
]


@pytest.mark.parametrize("samples", [1, 3, thresholds.ADDED_SAMPLES + 1])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kind", "size", "options"), GEOMETRIES)
def test_the_gradient_is_autograds(
    kind: Any, size: tuple[int, ...], options: dict[str, Any], layout: torch.memory_format, samples: int
) -> None:
    conv = kind(6, 6, groups=6, bias=False, **options).double()
    x = seeded(samples, 6, *size)
    x = x.to(memory_format=layout) if len(size) == 2 else x
    y = conv(x)
    g = seeded(*y.shape, seed=1)
    (exact,) = torch.autograd.grad(y, conv.weight, g)
    assert depthwise.fits(x, g, geometry_of(conv)) == (conv.weight[0].numel() >= thresholds.FEWEST_TAPS)
    torch.testing.assert_close(depthwise.weight_gradient(x, g, geometry_of(conv)), exact)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"groups": 3}, 4), ({}, 4), ({"groups": 6, "out_channels": 12}, 4), ({"groups": 6}, 16),
        ({"groups": 6, "kernel_size": 3, "padding": 1}, 4),
    ],
)  # fmt: skip
def test_others_are_left_to_torch(options: dict[str, int], size: int) -> None:
    conv = nn.Conv2d(6, **{"out_channels": 6, "kernel_size": 5, "padding": 2, **options})
    x = seeded(2, 6, size, size).float()
    assert not depthwise.fits(x, conv(x), geometry_of(conv))


def test_what_inference_has_seen_serves_gradients_too() -> None:
    conv = nn.Conv2d(6, 6, (3, 1), padding=1, groups=6, bias=False).double()
    x, g = seeded(2, 6, 3, 5), seeded(2, 6, 3, 7, seed=1)
    with torch.inference_mode():
        before = depthwise.weight_gradient(x, g, geometry_of(conv))
    found = depthwise.weight_gradient(x.requires_grad_(), g, geometry_of(conv))
    assert torch.equal(found, before)
    found.sum().backward()
    assert x.grad is not None
