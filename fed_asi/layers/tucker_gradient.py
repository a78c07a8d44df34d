"""dW straight from core and factors: the input is never rebuilt."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from fed_asi import tucker
from fed_asi.layers.geometry import Geometry, padded
from fed_asi.layers.kept import TuckerInput

BACKWARD = torch.ops.aten.convolution_backward.default


def weight_gradient(kept: TuckerInput, g: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    """Return dW: `shape`, exactly that of the input the Tucker forms stand for.

    g: (N, C', *S'). The batch mode is moved onto g, so that r_1 images stand for the batch; the
    core is multiplied out over space only, and dW's channels last, where groups allow it.
    """
    total: Tensor | None = None
    first = 0
    for form in kept.forms:
        core, factors = kept.part(form)
        m = core.shape[0]
        b = core.shape[1] if factors[0] is None else factors[0].shape[1]
        part = _of_form(core, factors, g[first : first + m * b].view(m, b, *g.shape[1:]), shape, geometry)
        total = part if total is None else total.add_(part)
        first += m * b
    return cast(Tensor, total)


def _of_form(
    core: Tensor, factors: tucker.Factors, g: Tensor, shape: torch.Size, geometry: Geometry
) -> Tensor:
    """Return dW of one form; core: (m, r1, r2, *r), g: (m, b, C', *S')."""
    if geometry.pointwise:
        return _pointwise(core, factors, g, geometry.stride).view(shape)
    if factors[0] is not None:
        g = tucker.mode_product(g, factors[0], 0)
    images = tucker.expand(core, factors, range(2, len(factors)))
    channels = factors[1]
    if channels is None or geometry.groups > 1 or geometry.transposed or core.shape[0] > 1:
        images = tucker.expand(images, factors, [1])
        return _kernel_gradient(images.flatten(0, 1), g.flatten(0, 1), shape, geometry)
    narrow = torch.Size([shape[0], core.shape[2], *shape[2:]])
    small = _kernel_gradient(images.flatten(0, 1), g.flatten(0, 1), narrow, geometry)
    return tucker.mode_product(small.unsqueeze(0), channels.mT, 1).squeeze(0)


def _pointwise(core: Tensor, factors: tucker.Factors, g: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Return dW: (C', C) of a 1x1 convolution or a linear layer: g is projected on every factor."""
    batch, channels, *space = factors
    for i, (factor, step) in enumerate(zip(space, stride, strict=True)):
        if factor is not None:
            g = tucker.mode_product(g, factor[:, ::step], 2 + i)
        elif step > 1:
            core = core[(slice(None),) * (3 + i) + (slice(None, None, step),)]
    if batch is not None:
        g = tucker.mode_product(g, batch, 0)
    narrow = tucker.unfold(g, 1) @ tucker.unfold(core, 1).mT
    if channels is None:
        return narrow.sum(0)
    return narrow.movedim(0, 1).flatten(1) @ channels.mT.flatten(0, 1)


def _kernel_gradient(x: Tensor, g: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    q = geometry
    weight = g.new_empty(1).expand(shape)
    rest = (None, q.stride, q.padding, q.dilation, q.transposed, q.output_padding, q.groups)
    found = BACKWARD(g, padded(x.to(g.dtype), q), weight, *rest, [False, True, False])
    return cast(Tensor, found[1])
