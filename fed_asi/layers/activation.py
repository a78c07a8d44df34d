"""Activations: one exact bit per element for two slopes, a few approximate bits per element for smooth slopes.

Two slopes (ReLU, ReLU6, Hardtanh, LeakyReLU, Hardsigmoid): exact, 1 bit per element.
Smooth (Hardswish, SiLU, GELU, Mish, Sigmoid, Tanh, Softplus): under `Quantized(bits)` the *slope* is kept in
8 or 4 bits, with an error of at most half a step, (high - low) / 2 / (2**bits - 1). At 8 bits that is 0.004 for
Hardswish and less than 0.0025 for the others. Under exact methods they keep their input, as in plain PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from fed_asi.layers import masks
from fed_asi.layers.base import LayerKind, original_class, register, state_of
from fed_asi.layers.bits import pack_levels, packed_bytes, unpack_levels
from fed_asi.layers.fused import Clamp, clamp_of, dense, own, physical
from fed_asi.layers.weightless import WeightlessKind, applied, needs_gradient
from fed_asi.methods import Method

# The range of each smooth activation's slope, rounded outward.
SLOPES: dict[type[nn.Module], tuple[float, float]] = {
    nn.Hardswish: (-0.5, 1.5),
    nn.SiLU: (-0.1, 1.1),
    nn.GELU: (-0.131, 1.131),
    nn.Mish: (-0.114, 1.09),
    nn.Sigmoid: (0.0, 0.25),
    nn.Tanh: (0.0, 1.0),
    nn.Softplus: (0.0, 1.0),
}


def _slope(module: Any, z: Tensor, y: Tensor) -> Tensor:
    """Return the slope of a smooth activation at z, computed by torch's own backward kernel."""
    aten, ones, kind = torch.ops.aten, torch.ones_like(z), original_class(module)
    if kind in (nn.Sigmoid, nn.Tanh):
        back = aten.sigmoid_backward if kind is nn.Sigmoid else aten.tanh_backward
        return cast(Tensor, back(ones, y))
    if kind is nn.GELU:
        return cast(Tensor, aten.gelu_backward(ones, z, approximate=module.approximate))
    if kind is nn.Softplus:
        return cast(Tensor, aten.softplus_backward(ones, z, module.beta, module.threshold))
    plain = {nn.Hardswish: aten.hardswish_backward, nn.SiLU: aten.silu_backward, nn.Mish: aten.mish_backward}
    return cast(Tensor, plain[kind](ones, z))


# The slope that torch uses for Hardsigmoid, in every dtype.
_SIXTH = torch.tensor(1 / 6, dtype=torch.float32).item()


def slope_error(module: nn.Module, bits: int) -> float:
    """Return the largest error of a smooth activation's slope when it is kept in `bits` bits."""
    low, high = SLOPES[original_class(module)]
    return float((high - low) / (2**bits - 1) / 2)


class _TwoSlopes(torch.autograd.Function):
    """An activation with two slopes; dX is exact, from one bit per element."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, module: nn.Module) -> Tensor:
        y = cast(Tensor, original_class(module).forward(module, z))
        if y is z:  # in place: the input now holds the output
            ctx.mark_dirty(z)
        ordered = y if dense(y) else y.contiguous()
        ctx.clamp, ctx.slope = _slopes(module)
        ctx.stride = ordered.stride()
        ctx.save_for_backward(masks.pack_open(physical(ordered), ctx.clamp.open))
        return y if y is z else own(ordered)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (packed,) = ctx.saved_tensors
        dz = ctx.clamp.mask_gradient(grad, packed, ctx.stride)
        return (dz if ctx.slope == 1.0 else dz * ctx.slope), None


def _slopes(module: nn.Module) -> tuple[Clamp, float]:
    """Return the clamp whose interior has the larger slope, and that slope."""
    if isinstance(module, nn.Hardsigmoid):
        return Clamp(0.0, 1.0), _SIXTH
    return cast(Clamp, clamp_of((module,))), 1.0


class _RoundedSlope(torch.autograd.Function):
    """A smooth activation; dX is computed from the slope, rounded to 2**bits levels of its range."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, module: nn.Module, bits: int) -> Tensor:
        low, high = SLOPES[original_class(module)]
        before = z.clone() if getattr(module, "inplace", False) else z
        y = cast(Tensor, original_class(module).forward(module, z))
        if y is z:
            ctx.mark_dirty(z)
        slope = _slope(module, before, y)
        slope = slope if dense(slope) else slope.contiguous()
        ctx.step, ctx.low, ctx.bits = (high - low) / (2**bits - 1), low, bits
        ctx.shape, ctx.stride = slope.shape, slope.stride()
        levels = physical(slope).sub(low).div_(ctx.step).round_().to(torch.uint8)
        ctx.save_for_backward(pack_levels(levels, bits))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (packed,) = ctx.saved_tensors
        levels = unpack_levels(packed, prod(ctx.shape), ctx.bits).to(grad.dtype)
        slope = levels.mul_(ctx.step).add_(ctx.low)
        return slope.as_strided(ctx.shape, ctx.stride) * grad, None, None


class _Compressed:
    """Mixin, placed before the original class; calls the original forward when no gradient is needed."""

    def forward(self, input: Tensor) -> Tensor:
        module = cast(nn.Module, self)
        if not needs_gradient(input):
            return cast(Tensor, original_class(module).forward(module, input))
        if original_class(module) not in SLOPES:
            return applied(_TwoSlopes, input, module)
        method = cast(Any, state_of(module)).method
        return applied(_RoundedSlope, input, module, method.slope_bits)


class CompressedReLU(_Compressed, nn.ReLU):
    """ReLU that keeps one bit per element."""


class CompressedReLU6(_Compressed, nn.ReLU6):
    """ReLU6 that keeps one bit per element."""


class CompressedHardtanh(_Compressed, nn.Hardtanh):
    """Hardtanh that keeps one bit per element."""


class CompressedLeakyReLU(_Compressed, nn.LeakyReLU):
    """LeakyReLU that keeps one bit per element."""


class CompressedHardsigmoid(_Compressed, nn.Hardsigmoid):
    """Hardsigmoid that keeps one bit per element."""


class CompressedHardswish(_Compressed, nn.Hardswish):
    """Hardswish that keeps its slope in 8 or 4 bits."""


class CompressedSiLU(_Compressed, nn.SiLU):
    """SiLU that keeps its slope in 8 or 4 bits."""


class CompressedGELU(_Compressed, nn.GELU):
    """GELU that keeps its slope in 8 or 4 bits."""


class CompressedMish(_Compressed, nn.Mish):
    """Mish that keeps its slope in 8 or 4 bits."""


class CompressedSigmoid(_Compressed, nn.Sigmoid):
    """Sigmoid that keeps its slope in 8 or 4 bits."""


class CompressedTanh(_Compressed, nn.Tanh):
    """Tanh that keeps its slope in 8 or 4 bits."""


class CompressedSoftplus(_Compressed, nn.Softplus):
    """Softplus that keeps its slope in 8 or 4 bits."""


class TwoSlopeKind(WeightlessKind):
    """Activations with two slopes: exact, one bit per element."""

    def reason(self, module: nn.Module) -> str | None:
        """Return why a leaky ReLU with a negative slope is left uncompressed; None for the others."""
        if isinstance(module, nn.LeakyReLU) and module.negative_slope < 0:
            return "a negative slope makes the output's sign say nothing; it keeps its input"
        return None

    def floor_bytes(self, _module: nn.Module, shape: Sequence[int], _dtype: torch.dtype) -> int:
        """Return the bytes of the mask."""
        return masks.packed_bytes(prod(shape))


class SmoothKind(WeightlessKind):
    """Smooth activations: approximate, under methods that give a number of bits for the slope."""

    def unsupported(self, module: nn.Module, method: Method) -> str | None:
        """Return why a method without `slope_bits` is refused; None for the others."""
        if method.slope_bits is not None:
            return None
        return "exact, a smooth activation keeps its input; quantized(bits=8) keeps its slope in 8 bits"

    def remark(self, module: nn.Module, method: Method) -> str:
        """Return the remark that states the largest error of the slope."""
        bits = cast(int, method.slope_bits)
        return f"approximate: slope off by at most {slope_error(module, bits):.4f}"

    def saved_bytes(
        self,
        module: nn.Module,
        method: Method,
        input_shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        fused: Sequence[nn.Module] = (),
    ) -> int:
        """Return the bytes of the rounded slopes."""
        return packed_bytes(prod(input_shape), cast(int, method.slope_bits))


def _register(base: type[LayerKind], *compressed: type[nn.Module]) -> None:
    for cls in compressed:
        original = cls.__mro__[2]
        register(type(f"{original.__name__}Kind", (base,), {"original": original, "compressed": cls})())


_register(
    TwoSlopeKind,
    CompressedReLU,
    CompressedReLU6,
    CompressedHardtanh,
    CompressedLeakyReLU,
    CompressedHardsigmoid,
)
_register(
    SmoothKind,
    CompressedHardswish,
    CompressedSiLU,
    CompressedGELU,
    CompressedMish,
    CompressedSigmoid,
    CompressedTanh,
    CompressedSoftplus,
)
