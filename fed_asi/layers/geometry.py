"""The geometry of a convolution: stride, padding of every kind, dilation, groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn

from fed_asi.torch_private import ConvNd, padding_amounts


@dataclass(frozen=True, slots=True)
class Geometry:
    """A convolution's geometry, in torch's own terms.

    pad: amounts for torch's pad, last dimension first, applied beforehand; empty where `padding` is enough.
    mode: how `pad` fills: "constant" (zeros), "reflect", "replicate" or "circular".
    pointwise: whether every output pixel reads one input pixel, through a full matrix.
    dense_stride: whether no input pixel is skipped.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int
    pad: tuple[int, ...] = ()
    mode: str = "constant"
    pointwise: bool = field(init=False, compare=False)
    dense_stride: bool = field(init=False, compare=False)

    def __post_init__(self) -> None:
        ones = all(k == 1 for k in self.kernel) and not any(self.padding) and not self.pad
        pointwise = ones and self.groups == 1 and not self.transposed and not any(self.output_padding)
        object.__setattr__(self, "pointwise", pointwise)
        object.__setattr__(self, "dense_stride", all(s == 1 for s in self.stride))


def geometry_of(conv: nn.Module) -> Geometry:
    """Return the geometry of a convolution of any dimension, transposed ones included."""
    known = cast(ConvNd, conv)
    pad = padding_amounts(conv)
    rest = (known.dilation, known.transposed, known.output_padding, known.groups)
    return _geometry(known.kernel_size, known.stride, known.padding, (known.padding_mode, pad), rest)


Rest = tuple[tuple[int, ...], bool, tuple[int, ...], int]


@lru_cache(maxsize=1024)
def _geometry(
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...] | str,
    mode_and_pad: tuple[str, tuple[int, ...]],
    rest: Rest,
) -> Geometry:
    mode, pad = mode_and_pad
    none = (0,) * len(kernel)
    if mode != "zeros":
        return Geometry(kernel, stride, none, *rest, pad=pad if any(pad) else (), mode=mode)
    if isinstance(padding, tuple):
        return Geometry(kernel, stride, padding, *rest)
    # 'same' and 'valid' are strings; torch pads 'same' unevenly for even kernels.
    before, after = pad[::2], pad[1::2]
    if before == after:
        return Geometry(kernel, stride, before[::-1], *rest)
    return Geometry(kernel, stride, none, *rest, pad=pad)


def padded(x: Tensor, geometry: Geometry) -> Tensor:
    """Return x with the padding that `padding` cannot express applied to its spatial dimensions."""
    if not geometry.pad:
        return x
    return nn.functional.pad(x, geometry.pad, mode=geometry.mode)


def unpadded_gradient(g: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    """Return the gradient of the unpadded input from g, the gradient of the padded one: padding is linear."""
    if not geometry.pad:
        return g
    if geometry.mode == "constant":
        return nn.functional.pad(g, [-amount for amount in geometry.pad])
    with torch.enable_grad():
        inner = g.new_zeros(shape).requires_grad_()
        outer = padded(inner, geometry)
    return torch.autograd.grad(outer, inner, g)[0]
