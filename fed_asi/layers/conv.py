"""Convolutions of one to three dimensions, and 2-d transposed ones, in every geometry that torch supports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import depthwise, tucker_gradient
from fed_asi.layers.base import register, state_of
from fed_asi.layers.compressed import WeightKind, run
from fed_asi.layers.convolution import Convolution, output_size
from fed_asi.layers.geometry import geometry_of
from fed_asi.layers.operation import Operation
from fed_asi.layers.taps import convolution_for
from fed_asi.methods import LayerSize, Traits
from fed_asi.methods.forms import Kept, TuckerInput
from fed_asi.torch_private import ConvNd


def operation_of(module: nn.Module, x: Tensor) -> Operation:
    """Return the convolution of a module, with the gradients of its method if the method defines its own."""
    state = state_of(module)
    if state is None:
        return convolution_for(geometry_of(module), None, x.shape)
    return convolution_for(geometry_of(module), state.method, x.shape, quick=state.quick and x.is_cpu)


class CompressedConv1d(nn.Conv1d):
    """A Conv1d that keeps its input as its method says."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, fused modules included."""
        return run(self, input, operation_of(self, input), 3)


class CompressedConv2d(nn.Conv2d):
    """A Conv2d that keeps its input as its method says."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, fused modules included."""
        return run(self, input, operation_of(self, input), 4)


class CompressedConv3d(nn.Conv3d):
    """A Conv3d that keeps its input as its method says."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, fused modules included."""
        return run(self, input, operation_of(self, input), 5)


class CompressedConvTranspose2d(nn.ConvTranspose2d):
    """A ConvTranspose2d that keeps its input as its method says."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the layer's output, fused modules included."""
        if output_size is not None:
            raise UnsupportedLayerError("a compressed ConvTranspose2d takes output_padding, not output_size")
        return run(self, input, operation_of(self, input), 4)


class ConvKind(WeightKind):
    """Base of the kinds of convolution."""

    def traits(self, module: nn.Module) -> Traits:
        """Return the traits of a convolution; only pointwise ones that use every pixel commute with a global mean."""
        q = geometry_of(module)
        return Traits(
            modes=len(q.kernel) + 2,
            channels=cast(ConvNd, module).in_channels,
            transposed=q.transposed,
            poolable=q.pointwise and q.dense_stride,
            pointwise=q.pointwise,
            groups=q.groups,
        )

    def size(self, module: nn.Module, shape: Sequence[int]) -> LayerSize:
        """Return the sizes of a call on an input of shape (B, C, *S)."""
        q = geometry_of(module)
        out = (shape[0], cast(ConvNd, module).out_channels, *output_size(shape, q))
        return LayerSize(tuple(shape), out, q.kernel, q.groups, q.transposed)

    def weight_gradient(self, module: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        """Return dW of the plain convolution."""
        weight = cast(Tensor, module.weight)
        if self.traits(module).poolable:
            return (g.transpose(0, 1).flatten(1) @ x.transpose(0, 1).flatten(1).mT).view_as(weight)
        geometry = geometry_of(module)
        if depthwise.fits(x, g, geometry):
            return depthwise.weight_gradient(x, g, geometry)
        return Convolution(geometry).gradient_of(x, g, weight.detach())

    def gradient_from_factors(self, module: nn.Module, kept: Kept, g: Tensor) -> Tensor | None:
        """Return dW of a Tucker form, where dW is a product of two thin matrices; None elsewhere."""
        geometry = geometry_of(module)
        if not (isinstance(kept, TuckerInput) and tucker_gradient.thin_fits(kept, geometry)):
            return None
        weight = cast(Tensor, module.weight).detach()
        return tucker_gradient.weight_gradient(kept, g, weight, geometry)


class Conv1dKind(ConvKind):
    """The kind of nn.Conv1d."""

    original = nn.Conv1d
    compressed = CompressedConv1d


class Conv2dKind(ConvKind):
    """The kind of nn.Conv2d."""

    original = nn.Conv2d
    compressed = CompressedConv2d


class Conv3dKind(ConvKind):
    """The kind of nn.Conv3d."""

    original = nn.Conv3d
    compressed = CompressedConv3d


class ConvTranspose2dKind(ConvKind):
    """The kind of nn.ConvTranspose2d."""

    original = nn.ConvTranspose2d
    compressed = CompressedConvTranspose2d


for _kind in (Conv1dKind, Conv2dKind, Conv3dKind, ConvTranspose2dKind):
    register(_kind())
