"""Networks of inverted residuals: the MCUNet family, and the small one of the demo.

Source: Lin et al., "MCUNet: Tiny Deep Learning on IoT Devices", NeurIPS 2020; the block lists
are those of the published configurations.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from fed_asi.models.registry import HALF, register

Block = tuple[int, int, int, int]
"""One inverted residual: (expand ratio, output channels, stride, kernel size)."""


class ConvLayer(nn.Module):
    """A convolution, its batch norm, and optionally a ReLU6."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU6(inplace=True) if act else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, (B, out_channels, H', W')."""
        y: torch.Tensor = self.bn(self.conv(x))
        return y if self.act is None else self.act(y)


class InvertedResidual(nn.Module):
    """1x1 expansion (unless its ratio is 1), depthwise convolution, linear 1x1 projection; a shortcut if it fits."""

    def __init__(self, in_channels: int, block: Block) -> None:
        super().__init__()
        expand, out_channels, stride, kernel = block
        middle = in_channels * expand
        self.shortcut = stride == 1 and in_channels == out_channels
        self.inverted_bottleneck = ConvLayer(in_channels, middle, 1) if expand != 1 else None
        self.depth_conv = ConvLayer(middle, middle, kernel, stride, groups=middle)
        self.point_linear = ConvLayer(middle, out_channels, 1, act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, (B, out_channels, H', W')."""
        y: torch.Tensor = x if self.inverted_bottleneck is None else self.inverted_bottleneck(x)
        y = self.point_linear(self.depth_conv(y))
        return x + y if self.shortcut else y


class InvertedResiduals(nn.Module):
    """A 3x3 convolution of stride 2, inverted residuals, the spatial mean, and a linear classifier."""

    def __init__(self, first_channels: int, blocks: Sequence[Block], num_classes: int) -> None:
        super().__init__()
        self.first_conv = ConvLayer(3, first_channels, 3, stride=2)
        channels, layers = first_channels, []
        for block in blocks:
            layers.append(InvertedResidual(channels, block))
            channels = block[1]
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the class scores, (B, num_classes), of images x: (B, 3, H, W)."""
        x = self.blocks(self.first_conv(x))
        scores: torch.Tensor = self.classifier(self.flatten(self.pool(x)))
        return scores


IN0: tuple[Block, ...] = (
    (1, 16, 1, 3),
    (4, 16, 2, 5), (3, 16, 1, 3), (4, 16, 1, 3),
    (5, 24, 2, 7), (4, 24, 1, 5), (5, 24, 1, 5),
    (5, 48, 2, 7), (4, 48, 1, 5), (5, 56, 1, 3), (4, 56, 1, 5), (5, 56, 1, 3),
    (6, 112, 2, 3), (4, 112, 1, 5), (6, 192, 1, 3),
)  # fmt: skip
IN1: tuple[Block, ...] = (
    (1, 8, 1, 3),
    (4, 16, 2, 3), (3, 16, 1, 3),
    (3, 24, 2, 7), (5, 24, 1, 3),
    (5, 40, 2, 3), (4, 40, 1, 7), (4, 48, 1, 5), (3, 48, 1, 3), (4, 48, 1, 3),
    (5, 96, 2, 7), (4, 96, 1, 5), (4, 96, 1, 5), (6, 160, 1, 3),
)  # fmt: skip
IN2: tuple[Block, ...] = (
    (1, 8, 1, 3),
    (3, 16, 2, 5), (6, 16, 1, 7), (5, 16, 1, 3), (5, 16, 1, 5),
    (5, 24, 2, 3), (6, 24, 1, 7), (6, 24, 1, 5),
    (4, 40, 2, 7), (5, 40, 1, 5), (5, 48, 1, 3), (5, 48, 1, 5), (4, 48, 1, 3),
    (6, 96, 2, 5), (4, 96, 1, 5), (3, 96, 1, 5), (4, 96, 1, 3), (5, 160, 1, 5),
)  # fmt: skip
IN3: tuple[Block, ...] = (
    (1, 8, 1, 3),
    (3, 16, 2, 7), (5, 16, 1, 3), (5, 16, 1, 7), (4, 16, 1, 5),
    (5, 24, 2, 5), (5, 24, 1, 5), (5, 24, 1, 5),
    (5, 40, 2, 3), (6, 40, 1, 7), (4, 40, 1, 5), (5, 48, 1, 5), (5, 48, 1, 7), (5, 48, 1, 3),
    (6, 96, 2, 3), (5, 96, 1, 7), (4, 96, 1, 3), (5, 160, 1, 7),
)  # fmt: skip
IN4: tuple[Block, ...] = (
    (1, 16, 1, 3),
    (3, 24, 2, 7), (5, 24, 1, 3), (4, 24, 1, 5),
    (5, 40, 2, 7), (4, 40, 1, 3), (4, 40, 1, 7),
    (3, 80, 2, 7), (3, 80, 1, 3), (3, 80, 1, 7), (4, 96, 1, 3), (3, 96, 1, 5), (3, 96, 1, 5),
    (4, 192, 2, 7), (3, 192, 1, 7), (3, 192, 1, 5), (4, 320, 1, 5),
)  # fmt: skip
TINY: tuple[Block, ...] = ((1, 8, 1, 3), (3, 16, 2, 3), (3, 16, 1, 3))

FAMILY: dict[str, tuple[int, tuple[Block, ...]]] = {
    "mcunet-in0": (24, IN0),
    "mcunet-in1": (16, IN1),
    "mcunet-in2": (16, IN2),
    "mcunet-in3": (16, IN3),
    "mcunet-in4": (32, IN4),
    "tiny": (8, TINY),
}
"""Name -> (channels of the first convolution, blocks)."""

_RENAMED = (("mobile_inverted_conv.", ""), ("classifier.linear.", "classifier."))


# in1 was designed for 96 pixels, but its published weights were trained at 128.
_RESOLUTIONS = {
    "mcunet-in0": 48,
    "mcunet-in1": 128,
    "mcunet-in2": 160,
    "mcunet-in3": 176,
    "mcunet-in4": 160,
    "tiny": 32,
}


def build(name: str, num_classes: int, _resolution: int | None = None) -> InvertedResiduals:
    """Return the family's network `name`, randomly initialised; it takes images of any size."""
    first_channels, blocks = FAMILY[name]
    return InvertedResiduals(first_channels, blocks, num_classes)


def from_published(key: str) -> str:
    """Return this module's state-dict key for a published one; its own keys are returned unchanged."""
    for published, ours in _RENAMED:
        key = key.replace(published, ours)
    return key


for _name in FAMILY:
    register(
        _name,
        partial(build, _name),
        normalisation=HALF,
        resolution=_RESOLUTIONS[_name],
        rename=from_published,
        aliases=("mcunet",) if _name == "mcunet-in1" else (),
    )
