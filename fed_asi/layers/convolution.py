"""The linear map of a convolution, and its gradients, in every geometry that torch supports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

from fed_asi.layers import depthwise, tucker_gradient
from fed_asi.layers.fused import dense
from fed_asi.layers.geometry import Geometry, padded, unpadded_gradient
from fed_asi.layers.gradient import WeightGradient
from fed_asi.layers.operation import Operation, WholeGradient, row_dots
from fed_asi.layers.thin import of_pixels, of_tucker
from fed_asi.layers.thresholds import FEW_ROWS, THIN
from fed_asi.methods import Method
from fed_asi.methods.forms import Kept, TuckerInput

LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


BACKWARD = torch.ops.aten.convolution_backward.default


@dataclass(frozen=True, slots=True)
class Convolution(Operation):
    """A convolution as a linear map of x: (N, C, *S).

    quick: whether dW may take more memory for a moment than a device would, as in simulated steps.
    """

    geometry: Geometry
    quick: bool = field(default=False, kw_only=True)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return z."""
        q = self.geometry
        rows = self._few_rows(x)
        if rows is not None:
            return _product(rows, weight.flatten(1), bias)
        return torch.convolution(
            self._as_the_weight(padded(x, q), weight),
            weight,
            bias,
            q.stride,
            q.padding,
            q.dilation,
            q.transposed,
            q.output_padding,
            q.groups,
        )

    def input_gradient(self, g: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return dX, exact, of shape `shape`."""
        rows = self._few_rows(g)
        if rows is not None:
            return (rows @ weight.flatten(1)).movedim(-1, 1)
        if self._flippable(g, shape[1]):
            return self._flipped(g, weight)
        g, outer = self._as_the_weight(g, weight), list(shape)
        for i, amount in enumerate(self.geometry.pad):
            outer[-1 - i // 2] += amount
        x = g.new_empty(1).expand(outer)
        if not g.is_contiguous() and dense(g):  # the kernel chooses by x's layout, and never reads x
            x = torch.empty(outer, dtype=g.dtype, device=g.device, memory_format=LAST[g.dim()])
        return unpadded_gradient(self._backward(g, x, weight, 0), shape, self.geometry)

    def _as_the_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """Return x with its channels first, as the weight has them, where the weight is the larger of the two.

        With both in one layout, no kernel reorders the weight, and dW needs no copy.
        """
        q = self.geometry
        if q.pointwise or q.groups > 1 or x.numel() >= weight.numel() or not x.is_cpu:
            return x
        return x.contiguous()

    def _few_rows(self, x: Tensor) -> Tensor | None:
        """Return x with its channels last where a matrix product is quicker (few pixels, one full matrix); else None.

        On CPU only: there both kernels compute in the same precision.
        """
        q = self.geometry
        if not (q.pointwise and q.dense_stride) or x.numel() > FEW_ROWS * x.shape[1] or not x.is_cpu:
            return None
        last = x.movedim(1, -1)
        return last if last.is_contiguous() else None

    def _flippable(self, g: Tensor, channels: int) -> bool:
        """Return whether the forward kernel should compute dX: for depthwise convolutions the backward one is slow."""
        q = self.geometry
        depthwise = q.groups > 1 and q.groups == g.shape[1] == channels and not (q.transposed or q.pad)
        reach = [d * (k - 1) for d, k in zip(q.dilation, q.kernel, strict=True)]
        return depthwise and q.dense_stride and all(p <= n for p, n in zip(q.padding, reach, strict=True))

    def _flipped(self, g: Tensor, weight: Tensor) -> Tensor:
        q = self.geometry
        every = zip(q.dilation, q.kernel, q.padding, strict=True)
        padding = [d * (k - 1) - p for d, k, p in every]
        back = weight.flip(list(range(2, weight.dim())))
        return torch.convolution(
            g, back, None, q.stride, padding, q.dilation, False, q.output_padding, q.groups
        )

    def weight_gradient(self, kept: Kept, g: Tensor, weight: Tensor) -> Tensor:
        """Return dW of the kept input; computed from core and factors where the input is in Tucker form."""
        if isinstance(kept, TuckerInput):
            return tucker_gradient.weight_gradient(kept, g, weight, self.geometry, quick=self.quick)
        return self.gradient_of(kept.restore(), g, weight)

    def gradient(self, kept: Kept, g: Tensor, weight: Tensor, *, thin: bool, own: bool) -> WeightGradient:
        """See Operation; a product of thin matrices saves the passes over all of dW and W."""
        if isinstance(kept, TuckerInput) and tucker_gradient.thin_fits(kept, self.geometry):
            left, right = tucker_gradient.thin(kept, g, weight.shape, self.geometry)
            if right is not None and (thin or (right.shape[0] <= THIN and not self.quick)):
                return of_tucker(left, right, weight)
            return WholeGradient(self, tucker_gradient.whole(left, right, weight))
        if thin and self.geometry.pointwise and not isinstance(kept, TuckerInput):
            return of_pixels(kept.restore(), g, weight, self.geometry.stride, own=own)
        return Operation.gradient(self, kept, g, weight, thin=thin, own=own)

    def of_channels(self, channels: Tensor) -> Operation:
        """See Operation."""
        if self.geometry.groups == 1:
            return self
        return replace(self, geometry=replace(self.geometry, groups=len(channels)))

    def gradient_of(self, x: Tensor, g: Tensor, weight: Tensor) -> Tensor:
        """Return dW for the input x."""
        if self.quick and depthwise.fits(x, g, self.geometry):
            return depthwise.weight_gradient(x, g, self.geometry)
        return self._backward(g, padded(x.to(g.dtype), self.geometry), weight, 1)

    def _backward(self, g: Tensor, x: Tensor, weight: Tensor, which: int) -> Tensor:
        q = self.geometry
        g, x = (g, x) if which == 0 else (self._as_the_weight(g, weight), self._as_the_weight(x, weight))
        mask = [which == 0, which == 1, False]
        rest = (None, q.stride, q.padding, q.dilation, q.transposed, q.output_padding, q.groups, mask)
        return cast(Tensor, BACKWARD(g, x, weight, *rest)[which])

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weight with every output channel multiplied by scale."""
        return self._by_output(weight).mul(scale.view(self._output_shape(weight))).view_as(weight)

    def scale_outputs_(self, weight: Tensor, scale: Tensor) -> None:
        """Multiply every output channel of the weight by scale, in place."""
        self._by_output(weight).mul_(scale.view(self._output_shape(weight)))

    def row_products(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Return <gradient, weight> for each output channel."""
        if not self.geometry.transposed:
            # A GPU waits for calls, and no device is traced there.
            return row_dots(gradient, weight, at_once=self.quick or not weight.is_cpu)
        return self._sum_inputs(self._by_output(gradient) * self._by_output(weight))

    def respond(self, weight: Tensor, mean: Tensor) -> Tensor:
        """Return the layer's response to an input that is `mean` everywhere: (C',), without bias and zero padding."""
        q = self.geometry
        if q.transposed:
            by_group = self._by_output(weight)  # (groups, C / groups, C' / groups, *K)
            return self._sum_inputs(by_group * mean.view(q.groups, -1, *[1] * (by_group.dim() - 2)))
        inputs = mean.view(q.groups, 1, -1).expand(-1, weight.shape[0] // q.groups, -1).flatten(0, 1)
        return (weight.flatten(2).sum(2) * inputs).sum(1)

    def _by_output(self, weight: Tensor) -> Tensor:
        return (
            weight.view(self.geometry.groups, -1, *weight.shape[1:]) if self.geometry.transposed else weight
        )

    def _output_shape(self, weight: Tensor) -> tuple[int, ...]:
        ones = (1,) * (weight.dim() - 2)
        return (self.geometry.groups, 1, -1, *ones) if self.geometry.transposed else (-1, 1, *ones)

    def _sum_inputs(self, by_output: Tensor) -> Tensor:
        if self.geometry.transposed:
            return by_output.flatten(3).sum((1, 3)).flatten()
        return by_output.flatten(1).sum(1)


def _product(rows: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """Return rows: (N, *S, C) times matrix^T plus bias as (N, C', *S), channels last, not a view.

    Autograd forbids writing into a view that a custom function returns, as an in-place activation would.
    """
    shape, outputs = rows.shape[:-1], matrix.shape[0]
    steps = [outputs * shape[i + 1 :].numel() for i in range(len(shape))]
    strides = (steps[0], 1, *steps[1:])
    z = torch.empty_strided((shape[0], outputs, *shape[1:]), strides, dtype=rows.dtype, device=rows.device)
    flat, out = rows.flatten(0, -2), z.movedim(1, -1).view(-1, outputs)
    if bias is None:
        torch.mm(flat, matrix.mT, out=out)
    else:
        torch.addmm(bias, flat, matrix.mT, out=out)
    return z


def output_size(shape: Sequence[int], q: Geometry) -> tuple[int, ...]:
    """Return the spatial size of z for an input of shape `shape`."""
    size = []
    for i, n in enumerate(shape[2:] if len(shape) == len(q.kernel) + 2 else shape[1:]):
        extra = sum(q.pad[2 * (len(q.kernel) - 1 - i) :][:2]) + 2 * q.padding[i]
        reach = q.dilation[i] * (q.kernel[i] - 1) + 1
        if q.transposed:
            size.append((n - 1) * q.stride[i] - extra + reach + q.output_padding[i])
        else:
            size.append((n + extra - reach) // q.stride[i] + 1)
    return tuple(size)


Variant = Callable[[Geometry, Method, tuple[int, ...]], Convolution]  # the last: the output's spatial size
_VARIANTS: dict[type[Method], Variant] = {}


def register_gradients(method: type[Method], make: Variant) -> None:
    """Use the convolution that `make` returns for layers under `method`: exact forward, gradients of its own."""
    _VARIANTS[method] = make


def variant_for(geometry: Geometry, method: Method | None, shape: Sequence[int]) -> Convolution | None:
    """Return the convolution with a method's own gradients for an input of shape `shape`; None if it has none."""
    make = None if method is None else _VARIANTS.get(type(method))
    if make is None or method is None:
        return None
    return make(geometry, method, output_size(shape, geometry))
