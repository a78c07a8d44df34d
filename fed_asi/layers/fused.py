"""Frozen batch norm and a piecewise linear activation, computed within the layer before them.

y = act(s * conv(x, W) + t) with s = gamma / sigma and t = beta + (bias - mu) * s, for frozen mu and sigma. The
backward pass needs the kept input and one bit per element. With D = dW of conv at the masked gradient g: dW = s * D,
dbeta = sum g, and the gradient of gamma follows from sum(g * z) = <D, W> + bias * sum g, so that no output of conv
is stored.

What compress_ must do for a fused group: set `fused = (bn,)`, `(bn, act)` or `(act,)`, in forward order, in the
state of the convolution. Each module must have no other input, and the output of conv no other user, in every mode.
Those modules' classes are swapped for ones that pass their input through (absorbed.py). Where a hook observes a
tensor in between, the group is not fused in that forward pass: each module computes its own output.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
from torch import Tensor, nn

from fed_asi.layers import masks
from fed_asi.layers.base import original_class
from fed_asi.layers.constants import Constants

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
THRESHOLD_BACKWARD = torch.ops.aten.threshold_backward
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.LeakyReLU)
SCALES, INVERSE, SHIFT, FOLDED = "scales", "1 / sigma", "shift", "folded weight"  # names of cached constants


@dataclass(frozen=True, slots=True)
class Clamp:
    """A piecewise linear activation: slope 1 inside (low, high), `slope` outside."""

    low: float
    high: float
    slope: float = 0.0

    def forward_(self, y: Tensor) -> Tensor:
        """Apply the activation to y in place, and return y."""
        if self.slope:
            return torch.nn.functional.leaky_relu_(y, self.slope)
        if self.high == float("inf") and self.low == 0:
            return y.relu_()
        return y.clamp_(self.low, None if self.high == float("inf") else self.high)

    def open(self, y: Tensor) -> Tensor:
        """Return 1 where the slope is 1 and 0 elsewhere, in the dtype of the output y from which it is derived."""
        # torch's own backward for a gradient of 1: one pass; comparisons would make boolean tensors, which are slow.
        ones = _one(y.dtype, y.device).expand_as(y)
        if self.high == float("inf"):
            return cast(Tensor, THRESHOLD_BACKWARD.default(ones, y, self.low))
        return cast(Tensor, torch.ops.aten.hardtanh_backward.default(ones, y, self.low, self.high))

    def mask_gradient(self, g: Tensor, packed: Tensor, stride: Sequence[int]) -> Tensor:
        """Return g times the slope at each element, from a mask packed in the order of `stride`.

        A g that is expanded over space, as after a global mean, is read without a copy.
        """
        if g.stride() != stride and 0 not in g.stride():
            g = torch.empty_strided(g.size(), stride, dtype=g.dtype, device=g.device).copy_(g)
        if self.slope:
            bits = masks.unpack(packed, g.numel(), g.dtype).as_strided(g.size(), stride)
            return bits.mul_(1 - self.slope).add_(self.slope).mul_(g)
        is_open = masks.positive(packed, g.size(), stride, g.dtype)
        if torch.is_grad_enabled():  # double backward: autograd forbids writing into `is_open`
            return cast(Tensor, THRESHOLD_BACKWARD.default(g, is_open, 0))
        return cast(Tensor, THRESHOLD_BACKWARD.grad_input(g, is_open, 0, grad_input=is_open))


@lru_cache(maxsize=16)
def _one(dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.ones((), dtype=dtype, device=device)


def dense(x: Tensor) -> bool:
    """Return whether x fills its memory without gaps, in one of torch's usual memory formats."""
    if x.is_contiguous():
        return True
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    return last is not None and x.is_contiguous(memory_format=last)


def physical(x: Tensor) -> Tensor:
    """Return a flat view of x in the order of its memory; x must be dense."""
    return x.as_strided((x.numel(),), (1,))


def own(y: Tensor) -> Tensor:
    """Return y as a tensor that is not a view: autograd forbids writing into a view that a function returns."""
    if not y._is_view():
        return y
    return y.new_empty(0).set_(y.untyped_storage(), y.storage_offset(), y.size(), y.stride())


def reason_not_fusable(fused: Sequence[nn.Module]) -> str | None:
    """Return why these modules, in order, cannot be computed by the layer before them; None if they can."""
    kinds = [original_class(module) for module in fused]
    norms, acts = [k in NORMS for k in kinds], [k in ACTIVATIONS for k in kinds]
    shape = [(n, a) for n, a in zip(norms, acts, strict=True)]
    if shape not in ([], [(True, False)], [(False, True)], [(True, False), (False, True)]):
        return f"only (norm), (act) or (norm, act) can be fused, not {[k.__name__ for k in kinds]}"
    if norms and norms[0] and getattr(fused[0], "running_var", None) is None:
        return "a batch norm without running statistics cannot be fused; leave it unfused"
    return None


def norm_of(fused: Sequence[nn.Module]) -> nn.Module | None:
    """Return the batch norm among the fused modules; None if there is none."""
    return fused[0] if fused and original_class(fused[0]) in NORMS else None


def clamp_of(fused: Sequence[nn.Module]) -> Clamp | None:
    """Return the activation among the fused modules; None if there is none."""
    module = fused[-1] if fused else None
    if isinstance(module, nn.Hardtanh):  # and ReLU6, its subclass
        return Clamp(module.min_val, module.max_val)
    if isinstance(module, nn.LeakyReLU):
        return Clamp(0.0, float("inf"), module.negative_slope)
    return Clamp(0.0, float("inf")) if isinstance(module, nn.ReLU) else None


def plain(fused: Sequence[nn.Module], y: Tensor) -> Tensor:
    """Return what the fused modules compute from y by themselves, with the batch norm frozen."""
    for module in fused:
        if isinstance(module, NORMS):
            own, seen = module._parameters, module._buffers  # quicker than attribute access through nn.Module
            rest = (False, 0.0, module.eps, torch.backends.cudnn.enabled)
            y = torch.batch_norm(
                y, own["weight"], own["bias"], seen["running_mean"], seen["running_var"], *rest
            )
        else:
            y = original_class(module).forward(module, y)
    return y


def norm_scale(norm: nn.Module, gamma: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (s, 1 / sigma), each (C',)."""
    inverse = torch.rsqrt(norm.running_var + norm.eps)  # type: ignore[operator]
    return (inverse if gamma is None else gamma * inverse), inverse


Scales = tuple[Tensor, Tensor]


def scales(norm: nn.Module, constants: Constants | None, gamma: Tensor | None, trained: bool) -> Scales:
    """Return the result of `norm_scale`, cached if there is a cache. trained: whether gamma is trained."""
    if constants is None:
        return norm_scale(norm, gamma)
    variance = cast(Tensor, norm._buffers["running_var"])
    inverse = constants.of(INVERSE, (variance,), lambda: norm_scale(norm, None)[1])
    if gamma is None:
        return inverse, inverse
    if trained:
        return constants.hold(SCALES, gamma * inverse), inverse
    return constants.of(SCALES, (gamma, variance), lambda: gamma * inverse), inverse


def scales_again(norm: nn.Module, constants: Constants | None, gamma: Tensor | None) -> Scales:
    """Return, in the backward, what `scales` gave in the forward: autograd passes gamma as another tensor."""
    if constants is None:
        return norm_scale(norm, gamma)
    inverse = constants.newest(INVERSE)
    return (inverse if gamma is None else constants.newest(SCALES)), inverse


def shift_of(
    norm: nn.Module,
    constants: Constants | None,
    bias: Tensor | None,
    gamma: Tensor | None,
    scale: Tensor,
    trained: bool,
) -> Tensor:
    """Return the constant that the norm adds, without beta: (C',). bias: the layer's. trained: bias or gamma is."""
    mean = cast(Tensor, norm._buffers["running_mean"])

    def made() -> Tensor:
        return (-mean if bias is None else bias - mean) * scale

    if constants is None or trained:
        return made()
    return constants.of(SHIFT, (bias, gamma, mean, norm._buffers["running_var"]), made)


def folded_weight(
    norm: nn.Module,
    constants: Constants | None,
    weight: Tensor,
    gamma: Tensor | None,
    make: Callable[[], Tensor],
    trained: bool,
) -> Tensor:
    """Return the weight with its outputs scaled, from `make` or the cache. trained: weight or gamma is."""
    if constants is None:
        return make()
    if trained:
        return constants.hold(FOLDED, make())
    return constants.of(FOLDED, (weight, gamma, norm._buffers["running_var"]), make)
