"""What a method may ask of a layer: the sizes of one call, and the traits that decide whether it can keep its input."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple


class Passes(NamedTuple):
    """What is done besides multiply-accumulates: kernel calls, and elements handled one by one."""

    calls: int = 0
    elements: int = 0


@dataclass(frozen=True, slots=True)
class LayerSize:
    """Sizes of one call of a convolution or linear layer.

    dims: of the input, (B, C, *S). out: of the output, (B, C', *S'). kernel: () for a linear layer.
    """

    dims: tuple[int, ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return prod(self.kernel)

    @property
    def dense(self) -> int:
        """K^2 C C': the number of elements that the weight would have without groups."""
        return self.taps * self.dims[1] * self.out[1]

    @property
    def pixels(self) -> int:
        """B H' W' of the grid that the kernel moves over: the output's, or a transposed convolution's input's."""
        return prod(self.dims[:1] + self.dims[2:]) if self.transposed else prod(self.out[:1] + self.out[2:])

    @property
    def pointwise(self) -> bool:
        """Whether the layer applies one matrix to every pixel."""
        return self.taps == 1 and self.groups == 1 and not self.transposed

    @property
    def forward_macs(self) -> int:
        """Multiply-accumulates of the forward pass. An exact dW takes as many, and so does dX."""
        return self.dense // self.groups * self.pixels


@dataclass(frozen=True, slots=True)
class Traits:
    """What decides which methods can keep the input of a layer.

    modes: of its input, batch included; None if it takes any number from 2. channels: of its input, at `channel_mode`
    in the layer's own order. spatial: whether its input has spatial modes. poolable: whether pooling the input gives
    the same as pooling the output. pointwise: whether it applies one matrix to every pixel or token. groups: of its
    channels.
    """

    modes: int | None
    channels: int
    channel_mode: int = 1
    spatial: bool = True
    transposed: bool = False
    poolable: bool = False
    pointwise: bool = False
    groups: int = 1
