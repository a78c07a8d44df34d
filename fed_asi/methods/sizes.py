"""What a method may ask of a layer: the sizes of one call, and the traits that decide whether it can keep its input."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple


class Passes(NamedTuple):
    """What is done beside multiply-accumulates: kernel calls, and elements that are handled one by one."""

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
        """K^2 C C': the weight's elements if there were no groups."""
        return self.taps * self.dims[1] * self.out[1]

    @property
    def pixels(self) -> int:
        """B H' W' of the grid the kernel is laid on: the output's, or a transposed convolution's input's."""
        return prod(self.dims[:1] + self.dims[2:]) if self.transposed else prod(self.out[:1] + self.out[2:])

    @property
    def pointwise(self) -> bool:
        """Whether the layer is one matrix for every pixel."""
        return self.taps == 1 and self.groups == 1 and not self.transposed

    @property
    def forward_macs(self) -> int:
        """Multiply-accumulates of the forward pass; those of an exact dW and of dX are the same number."""
        return self.dense // self.groups * self.pixels


@dataclass(frozen=True, slots=True)
class Traits:
    """What a layer is, as far as it decides which methods can keep its input.

    modes: of its input, batch included; None where any number from 2 will do. channels: of its input, which stand
    in its own order at `channel_mode`. spatial: whether its input has space. poolable: whether pooling the input
    before the layer gives what pooling its output gives. pointwise: whether it is one matrix for every pixel or token.
    groups: of its channels.
    """

    modes: int | None
    channels: int
    channel_mode: int = 1
    spatial: bool = True
    transposed: bool = False
    poolable: bool = False
    pointwise: bool = False
    groups: int = 1
