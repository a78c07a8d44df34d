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
    if factors[0] is not None:
        g = _project_batch(g, factors[0])
    if geometry.pointwise:
        return _pointwise(core, factors, g, geometry.stride).view(shape)
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
    _, channels, *space = factors
    for i, (factor, step) in enumerate(zip(space, stride, strict=True)):
        if factor is not None:
            core = tucker.mode_product(core, factor[:, ::step].mT, 2 + i)
        elif step > 1:
            core = core[(slice(None),) * (3 + i) + (slice(None, None, step),)]
    # r2 rows on the left, g's channels last where its memory has them so.
    narrow = tucker.product(tucker.unfold(core, 1), g.movedim(2, -1).flatten(1, -2))
    if channels is None:
        return narrow.sum(0).mT
    return (channels.mT.flatten(0, 1).mT @ narrow.flatten(0, 1)).mT


def _project_batch(g: Tensor, factor: Tensor) -> Tensor:
    """Return factor^T g over the batch mode of g: (m, b, C', ...), in the order of g's memory."""
    last = g.movedim(2, -1)
    if g.dim() > 3 and last.is_contiguous():
        images = tucker.product(factor.mT, last.flatten(2))
        return images.view(g.shape[0], -1, *last.shape[2:]).movedim(-1, 2)
    return tucker.product(factor.mT, g.flatten(2)).view(g.shape[0], -1, *g.shape[2:])


def _kernel_gradient(x: Tensor, g: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    q = geometry
    weight = g.new_empty(1).expand(shape)
    rest = (None, q.stride, q.padding, q.dilation, q.transposed, q.output_padding, q.groups)
    found = BACKWARD(g, padded(x.to(g.dtype), q), weight, *rest, [False, True, False])
    return cast(Tensor, found[1])
