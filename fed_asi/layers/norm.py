"""Batch norm with fixed running statistics: an affine map that keeps nothing.

A compressed batch norm uses its running statistics in training mode too, and never updates them. The gradient of
beta needs nothing; that of gamma needs the input, unless the batch norm is fused into a convolution, where <dW, W>
gives it. So a batch norm that is not fused keeps its input only while gamma is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.layers.base import LayerState, original_class, register, state_of
from fed_asi.layers.classes import BATCH_NORM
from fed_asi.layers.weightless import WeightlessKind, applied
from fed_asi.methods import Frozen
from fed_asi.torch_private import check_input_dim

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


class _FixedNorm(torch.autograd.Function):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, with dX, dgamma and dbeta exact."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        module: BatchNorm,
        gamma: Tensor | None,
        _beta: Tensor | None,  # an argument so that autograd asks for its gradient
    ) -> Tensor:
        ctx.eps, ctx.dims, ctx.state = module.eps, x.dim(), state_of(module)
        trained = gamma is not None and ctx.needs_input_grad[2]
        # gamma and the statistics are the module's own tensors: saving them keeps no activation.
        ctx.save_for_backward(x if trained else None, gamma, module.running_mean, module.running_var)
        return fixed_norm(x, module)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, mean, var = ctx.saved_tensors
        inverse = torch.rsqrt(var + ctx.eps)
        view, sums = (1, -1, *[1] * (ctx.dims - 2)), [0, *range(2, ctx.dims)]
        scale = inverse if gamma is None else gamma * inverse
        need_x, _, need_gamma, need_beta = ctx.needs_input_grad
        dx = grad * scale.to(grad.dtype).view(view) if need_x else None
        products = grad * ((x - mean.view(view)) * inverse.view(view)) if need_gamma else None
        if ctx.state is not None and ctx.state.clip is not None:
            every = [
                one.flatten(2).sum(2) if one.dim() > 2 else one for one in (products, grad) if one is not None
            ]
            wanted = every if need_beta else every[:1]
            shares = ctx.state.clip.of_images(torch.cat(wanted, 1)).view(-1, *[1] * (ctx.dims - 1))
            grad, products = grad * shares, None if products is None else products * shares
        dbeta = grad.sum(sums) if need_beta else None
        dgamma = None if products is None else products.sum(sums).to(gamma.dtype)
        return dx, None, dgamma, dbeta


class _FixedBatchNorm:
    """Mixin, placed before the original class: normalises by the running statistics in every mode."""

    def forward(self, input: Tensor) -> Tensor:
        module = cast(BatchNorm, self)
        check_input_dim(module, input)
        if torch.is_grad_enabled():
            return applied(_FixedNorm, input, module, module.weight, module.bias)
        return fixed_norm(input, module)


def fixed_norm(x: Tensor, module: BatchNorm) -> Tensor:
    """Return x normalised by the running statistics of the module."""
    mean, var = module.running_mean, module.running_var
    return F.batch_norm(x, mean, var, module.weight, module.bias, training=False, eps=module.eps)


class FixedBatchNorm1d(_FixedBatchNorm, nn.BatchNorm1d):
    """BatchNorm1d with fixed statistics."""


class FixedBatchNorm2d(_FixedBatchNorm, nn.BatchNorm2d):
    """BatchNorm2d with fixed statistics."""


class FixedBatchNorm3d(_FixedBatchNorm, nn.BatchNorm3d):
    """BatchNorm3d with fixed statistics."""


class BatchNormKind(WeightlessKind):
    """Exact under every method; keeps its input only while gamma is trained."""

    def reason(self, module: nn.Module) -> str | None:
        """Return why a batch norm without running statistics is left uncompressed; None for the others."""
        if cast(BatchNorm, module).running_mean is None:
            return "it has no running statistics to fix, so it stays as it is and keeps its input"
        return None

    def floor_bytes(self, module: nn.Module, shape: Sequence[int], dtype: torch.dtype) -> int:
        """Return the bytes of the input while gamma is trained, else 0."""
        gamma = cast(BatchNorm, module).weight
        return dtype.itemsize * prod(shape) if gamma is not None and gamma.requires_grad else 0


class _BatchNorm1dKind(BatchNormKind):
    original = nn.BatchNorm1d
    compressed = FixedBatchNorm1d


class _BatchNorm2dKind(BatchNormKind):
    original = nn.BatchNorm2d
    compressed = FixedBatchNorm2d


class _BatchNorm3dKind(BatchNormKind):
    original = nn.BatchNorm3d
    compressed = FixedBatchNorm3d


for _kind in (_BatchNorm1dKind, _BatchNorm2dKind, _BatchNorm3dKind):
    register(_kind())


class _InEvalMode:
    """Mixin, placed before a user's own batch norm class: its forward runs as in eval mode."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        module = cast(nn.Module, self)
        mode, module.training = module.training, False
        try:
            return original_class(module).forward(module, *args, **kwargs)
        finally:
            module.training = mode

    def __reduce_ex__(self, _protocol: Any) -> Any:
        module = cast(nn.Module, self)
        return _blank, (original_class(module),), module.__dict__


_FIXED: dict[type[nn.Module], type[nn.Module]] = {}


def _fixed_class(original: type[nn.Module]) -> type[nn.Module]:
    if original not in _FIXED:
        _FIXED[original] = type(f"Fixed{original.__name__}", (_InEvalMode, original), {})
    return _FIXED[original]


def _blank(original: type[nn.Module]) -> nn.Module:
    """Return an empty module, which copy or pickle then fills."""
    made = _fixed_class(original)
    return made.__new__(made)


def fix_(module: nn.Module, name: str) -> bool:
    """Fix the statistics of a batch norm of a user's own class; return whether the module had any to fix.

    It keeps the same as in plain PyTorch. `layers.detach_` undoes it.
    """
    if not isinstance(module, BATCH_NORM) or getattr(module, "running_mean", None) is None:
        return False
    original = original_class(module)
    module.__dict__["_asi"] = LayerState(name, Frozen(), original)
    cast(Any, module).__class__ = _fixed_class(original)
    return True
