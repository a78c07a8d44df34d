"""A trunk whose depthwise convolutions run by channels: the same output in a smaller arena, and its layout proved."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from fed_asi.compression.by_channels import AT_ONCE, Fused, InPlace, as_it_runs, by_channels
from fed_asi.compression.cut import folded
from fed_asi.memory.arena.planned import inference_arena
from fed_asi.memory.arena.proof import proved
from fed_asi.memory.arena.step import record_inference
from tails import tail_of

KIB = 1024
KINDS = (InPlace, Fused)
WAYS = ("layer", "channel")


def ways(trunk: nn.Module) -> list[str]:
    return [type(one).__name__ for one in trunk.modules() if isinstance(one, KINDS)]


def traced(*modules: nn.Module) -> fx.GraphModule:
    """Return a frozen network of whole numbers, so that sums are exact in any order."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(*modules).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.copy_(torch.randint(-3, 4, parameter.shape, generator=generator).float())
    return fx.symbolic_trace(net)


def image(channels: int, size: int = 9) -> Tensor:
    return torch.randint(-4, 5, (2, channels, size, size), generator=torch.Generator().manual_seed(1)).float()


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(2, 2 * AT_ONCE + 1),
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 3)]),
    stride=st.sampled_from([1, 2, (1, 2), 3]),
    padding=st.sampled_from([0, 1, (2, 1)]),
    dilation=st.sampled_from([1, 2]),
    expansion=st.sampled_from([1, 3]),
    bias=st.booleans(),
    act=st.sampled_from([nn.ReLU6(), nn.ReLU(inplace=True), nn.Hardtanh(-2, 2), nn.Identity(), None]),
)
def test_the_output_is_that_of_whole_layers_to_the_bit(
    channels, kernel, stride, padding, dilation, expansion, bias, act
):
    sizes = {"stride": stride, "padding": padding, "dilation": dilation, "groups": channels, "bias": bias}
    depthwise = nn.Conv2d(channels, channels, kernel, **sizes)
    first = nn.Conv2d(3, channels, expansion, bias=bias)
    trunk = traced(first, *([] if act is None else [act]), depthwise, nn.ReLU(), nn.Conv2d(channels, 4, 1))
    x = image(3, 14)
    assert torch.equal(by_channels(trunk)(x.clone()), trunk(x))


def test_stride_1_runs_in_place_and_a_larger_stride_together_with_the_layer_before() -> None:
    trunk = traced(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(8, 12, 1), nn.ReLU6(), nn.Conv2d(12, 12, 3, stride=2, groups=12),
    )  # fmt: skip
    found = by_channels(trunk)
    assert ways(found) == ["InPlace", "Fused"]
    assert ways(trunk) == []  # it is only read
    count = [sum(p.numel() for p in one.parameters()) for one in (trunk, found)]
    assert count[0] == count[1]
    assert torch.equal(found(image(3)), trunk(image(3)))


class TwoReaders(nn.Module):
    """Reads what a depthwise convolution reads once more, afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 1)
        self.same = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.fewer = nn.Conv2d(6, 6, 3, padding=1, stride=2, groups=6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.fewer(x) + (self.same(x) + x)[..., ::2, ::2]


def called_twice() -> nn.Module:
    again = nn.Conv2d(6, 6, 3, padding=1, groups=6)
    return nn.Sequential(nn.Conv2d(3, 6, 1), again, nn.ReLU(), again)


@pytest.mark.parametrize(
    "made",
    [
        TwoReaders,
        called_twice,
        lambda: nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.Conv2d(3, 2, 1)),  # over the image
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, padding=1, groups=6)),
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6, padding_mode="reflect")
        ),
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1, groups=3), nn.Conv2d(6, 6, 3, stride=2, groups=6)),
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, stride=2, groups=6)),
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, padding=1, groups=6)),
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=2)),
    ],
    ids=["readers", "twice", "image", "pool", "reflect", "grouped", "norm", "more", "groups"],
)
def test_where_it_would_be_wrong_or_of_no_use_layers_run_whole(made) -> None:
    trunk = traced(made())
    x = image(3)
    before = x.clone()
    found = by_channels(trunk)
    assert ways(found) == []
    assert torch.equal(found(x), trunk(x))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("name", "whole", "kib"),
    [("mcunet", 160, 112), pytest.param("mobilenet_v2", 480, 200, marks=pytest.mark.slow)],
)
def test_the_arena_of_a_mobile_network_is_far_smaller(name: str, whole: int, kib: int) -> None:
    """MCUNet: the image of 48 KiB and the first output of 64, where it was an expansion of 128 and its input."""
    tail = tail_of(name, None, batch=1, size=128, layers=4)
    found = [
        inference_arena(as_it_runs(tail.trunk, by), tail.images, storage="int8").bytes / KIB for by in WAYS
    ]
    assert found == [whole, kib]


def test_its_layout_is_proved_and_its_features_are_those_of_whole_layers() -> None:
    tail = tail_of("mcunet", None, batch=1, size=64, layers=4)
    trunk = as_it_runs(tail.trunk, "channel")
    assert set(ways(trunk)) == {"InPlace", "Fused"}
    found = proved(record_inference(trunk, tail.images, with_values=True))
    assert found.differences == {"output": 0.0}
    assert found.arena.bytes == found.arena.lower_bound_bytes == 28 * KIB * 4
    torch.testing.assert_close(trunk(tail.images), folded(tail.trunk)(tail.images))
