"""dW straight from core and factors: the input is never restored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from fed_asi import tucker
from fed_asi.layers import depthwise
from fed_asi.layers.geometry import Geometry, padded
from fed_asi.methods.forms import TuckerInput

COPIED_OUTPUTS = 32  # transposed into the weight's layout at one time: a small transient that stays in cache
BACKWARD = torch.ops.aten.convolution_backward.default


def weight_gradient(
    kept: TuckerInput, g: Tensor, weight: Tensor, geometry: Geometry, *, quick: bool = False
) -> Tensor:
    """Return dW, in the shape of the weight: exactly that of the input which the Tucker forms stand for.

    g: (N, C', *S'). g is projected on the batch factor, so that r_1 images stand for the batch. The core is multiplied
    out over space only, and over channels last of all, where the groups allow it. quick: see `Convolution`.
    """
    shape = weight.shape
    if thin_fits(kept, geometry):
        left, right = thin(kept, g, shape, geometry)
        return whole(left, right, weight)
    total: Tensor | None = None
    for core, factors, part in _forms(kept, g):
        found = _of_form(core, factors, part, shape, geometry, quick)
        total = found if total is None else total.add_(found)
    return cast(Tensor, total)


def thin_fits(kept: TuckerInput, geometry: Geometry) -> bool:
    """Return whether dW is a product of two matrices, the second of which is the channel factor alone.

    With groups there would be one product per group. Side-by-side micro-batches each have their own factors: this pays
    off where an output pixel reads one input pixel, but a larger kernel would have to slide over each of them.
    """
    if geometry.pointwise:
        return True
    one = len(kept.forms) == 1 and kept.tensors[kept.forms[0].first].shape[0] == 1
    return one and kept.forms[0].present[1] and geometry.groups == 1 and not geometry.transposed


def thin(kept: TuckerInput, g: Tensor, shape: torch.Size, geometry: Geometry) -> tuple[Tensor, Tensor | None]:
    """Return (left, right), (C' K, r) and (r, C), whose product is dW with input channels last; K: taps of the kernel.

    r is the channel rank, times the number of side-by-side micro-batches. At full channel rank left is dW and
    right is None.
    """
    if not geometry.pointwise:
        ((core, factors, part),) = _forms(kept, g)
        small = _narrow(core, factors, part, shape, geometry)
        return small.movedim(1, -1).reshape(-1, core.shape[1]), cast(Tensor, factors[1]).mT
    parts = [_pointwise(core, factors, part, geometry.stride) for core, factors, part in _forms(kept, g)]
    if len(parts) == 1:
        return parts[0]
    rights = [right for _, right in parts if right is not None]
    if not rights:
        return torch.stack([left for left, _ in parts]).sum(0), None
    return torch.cat([left for left, _ in parts], 1), torch.cat(rights, 0)


def whole(left: Tensor, right: Tensor | None, weight: Tensor) -> Tensor:
    """Return dW from the result of `thin`, in the weight's memory layout."""
    outputs, inputs, *kernel = weight.shape
    if right is None or left.shape[0] == outputs:
        return (left.contiguous() if right is None else left @ right).view(weight.shape)
    if not weight.is_contiguous():
        return (left @ right).view(outputs, *kernel, inputs).movedim(-1, 1)
    dw = torch.empty_like(weight)
    rows = left.view(outputs, -1, left.shape[1])
    parts, outs = torch.split(rows, COPIED_OUTPUTS), torch.split(dw, COPIED_OUTPUTS)
    for part, out in zip(parts, outs, strict=True):
        out.copy_((part.flatten(0, 1) @ right).view(-1, *kernel, inputs).movedim(-1, 1))
    return dw


def _forms(kept: TuckerInput, g: Tensor) -> Iterator[tuple[Tensor, tucker.Factors, Tensor]]:
    """Yield (core, factors, g) for each form, with g as (m, b, C', *S'); if m is 1, without the m axis."""
    first = 0
    for form in kept.forms:
        core, factors = kept.part(form)
        m = core.shape[0]
        b = core.shape[1] if factors[0] is None else factors[0].shape[1]
        part = g if m * b == g.shape[0] else g[first : first + m * b]
        if m == 1:
            yield core[0], [None if f is None else f[0] for f in factors], part
        else:
            yield core, factors, part.view(m, b, *g.shape[1:])
        first += m * b


def _of_form(
    core: Tensor, factors: tucker.Factors, g: Tensor, shape: torch.Size, geometry: Geometry, quick: bool
) -> Tensor:
    """Return dW of one form; core: (..., r1, r2, *r), g: (..., b, C', *S')."""
    lead = core.dim() - len(factors)
    g = _project_batch(g, factors[0], lead).flatten(0, lead)
    images, channels = _over_space(core, factors[2:], lead), factors[1]
    if channels is not None:
        last = images.movedim(lead + 1, -1)  # one product, with channels last, as g usually has them
        wide = tucker.times(last.flatten(lead, -2), channels.mT)
        images = wide.view(*last.shape[:-1], -1).movedim(-1, lead + 1)
    images = images.flatten(0, lead)
    if quick and depthwise.fits(images, g, geometry):
        return depthwise.weight_gradient(images, g, geometry)
    return _kernel_gradient(images, g, shape, geometry)


def _narrow(
    core: Tensor, factors: tucker.Factors, g: Tensor, shape: torch.Size, geometry: Geometry
) -> Tensor:
    """Return dW before it is multiplied by the channel factor: (C', r2, *K), for one form without an m axis."""
    images = _over_space(core, factors[2:], 0)
    g = _project_batch(g, factors[0], 0)
    return _kernel_gradient(images, g, torch.Size([shape[0], core.shape[1], *shape[2:]]), geometry)


def _over_space(core: Tensor, space: Sequence[Tensor | None], lead: int) -> Tensor:
    """Return the core (..., r1, r2, *r) multiplied out over space: (..., r1, r2, *S)."""
    if len(space) != 2 or space[0] is None or space[1] is None:
        factors = [None, None, *space]
        whole = core if lead else core.unsqueeze(0)
        whole = tucker.expand(whole, [f if f is None or lead else f.unsqueeze(0) for f in factors])
        return whole if lead else whole[0]
    high, wide = (factor.mT for factor in space if factor is not None)
    both = high.unsqueeze(-2).unsqueeze(-1) * wide.unsqueeze(-2).unsqueeze(-4)  # (..., rh, rw, H, W)
    flat = core.reshape(*core.shape[:lead], -1, both.shape[-4] * both.shape[-3])
    whole = tucker.times(flat, both.flatten(-4, -3).flatten(-2))
    return whole.view(*core.shape[:-2], *both.shape[-2:])


def _pointwise(
    core: Tensor, factors: tucker.Factors, g: Tensor, stride: tuple[int, ...]
) -> tuple[Tensor, Tensor | None]:
    """Return (left, right) as `thin` does; core: (..., r1, r2, *r), g: (..., b, C', *S')."""
    lead = core.dim() - len(factors)
    space: tucker.Factors = []
    for i, (factor, step) in enumerate(zip(factors[2:], stride, strict=True)):
        if factor is None and step > 1:
            core = core[(slice(None),) * (lead + 2 + i) + (slice(None, None, step),)]
        space.append(factor if factor is None or step == 1 else factor[..., ::step, :])
    images, batch, channels = _over_space(core, space, lead), factors[0], factors[1]
    if batch is not None and _wide(images.shape[lead + 1], *batch.shape[-2:]):
        g = _project_batch(g, batch, lead)
    elif batch is not None:
        images = tucker.times(batch, images.flatten(lead + 1)).view(
            *core.shape[:lead], -1, *images.shape[lead + 1 :]
        )
    # r2 rows on the left, g's channels last where its memory has them so.
    rows = g.movedim(lead + 1, -1).flatten(lead, -2)
    narrow = tucker.times(images.transpose(lead, lead + 1).flatten(lead + 1), rows)
    if channels is None:
        return (narrow.sum(0) if lead else narrow).mT, None
    right = channels.mT
    return (narrow.flatten(0, 1).mT, right.flatten(0, 1)) if lead else (narrow.mT, right)


def _wide(channels: int, samples: int, rank: int) -> bool:
    """Return whether projecting g on the batch factor first takes less work than using it as it stands."""
    return rank * (samples + channels) < channels * samples


def _project_batch(g: Tensor, factor: Tensor | None, lead: int) -> Tensor:
    """Return factor^T g over the batch mode of g: (..., b, C', *S'), in the memory layout of g."""
    if factor is None:
        return g
    last = g.movedim(lead + 1, -1)
    if last.is_contiguous():
        images = tucker.times(factor.mT, last.flatten(lead + 1))
        return images.view(*g.shape[:lead], -1, *last.shape[lead + 1 :]).movedim(-1, lead + 1)
    return tucker.times(factor.mT, g.flatten(lead + 1)).view(*g.shape[:lead], -1, *g.shape[lead + 1 :])


def _kernel_gradient(x: Tensor, g: Tensor, shape: torch.Size, geometry: Geometry) -> Tensor:
    q = geometry
    weight = g.new_empty(1).expand(shape)
    rest = (None, q.stride, q.padding, q.dilation, q.transposed, q.output_padding, q.groups)
    found = BACKWARD(g, padded(x.to(g.dtype), q), weight, *rest, [False, True, False])
    return cast(Tensor, found[1])
