"""Convolutions of one to three dimensions, and 2-d transposed ones, in every geometry torch has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers.base import register, state_of
from fed_asi.layers.compressed import WeightKind, run
from fed_asi.layers.convolution import convolution_for, output_size
from fed_asi.layers.function import Operation
from fed_asi.layers.geometry import geometry_of
from fed_asi.methods.base import GradientFilter, Method


def operation_of(module: nn.Module, x: Tensor) -> Operation:
    """Return the convolution of a module, with the gradients of its method where that has its own."""
    state = state_of(module)
    return convolution_for(geometry_of(module), None if state is None else state.method, x.shape)


class CompressedConv1d(nn.Conv1d):
    """A Conv1d that keeps what its method says."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, fused modules included."""
        return run(self, input, operation_of(self, input), 3)


class CompressedConv2d(nn.Conv2d):
    """A Conv2d that keeps what its method says."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, fused modules included."""
        return run(self, input, operation_of(self, input), 4)


class CompressedConv3d(nn.Conv3d):
    """A Conv3d that keeps what its method says."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, fused modules included."""
        return run(self, input, operation_of(self, input), 5)


class CompressedConvTranspose2d(nn.ConvTranspose2d):
    """A ConvTranspose2d that keeps what its method says."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the layer's output, fused modules included."""
        if output_size is not None:
            raise UnsupportedLayerError("a compressed ConvTranspose2d takes output_padding, not output_size")
        return run(self, input, operation_of(self, input), 4)


class ConvKind(WeightKind):
    """A kind of convolution."""

    def unsupported(self, module: nn.Module, method: Method) -> str | None:
        """Return why, or None."""
        if isinstance(method, GradientFilter) and geometry_of(module).transposed:
            return "the gradient filter is not defined for transposed convolutions; choose another method"
        return super().unsupported(module, method)

    def not_poolable(self, module: nn.Module) -> str | None:
        """Only pointwise convolutions that use every pixel commute with a global mean."""
        q = geometry_of(module)
        if q.pointwise and q.dense_stride:
            return None
        return "method 'mean' needs a 1x1 convolution, stride 1, no padding, groups 1; choose another method"

    def impossible_ranks(self, module: nn.Module, ranks: Sequence[int]) -> str | None:
        """Return what is wrong with ranks (B, C, *S)."""
        modes = len(geometry_of(module).kernel) + 2
        if len(ranks) != modes:
            return f"{len(ranks)} ranks {tuple(ranks)} for an input of {modes} modes (batch, channels, space)"
        channels = cast(_ConvNd, module).in_channels
        if ranks[1] > channels:
            return f"rank {ranks[1]} is above its {channels} input channels; lower it"
        return None

    def canonical(
        self, module: nn.Module, method: Method, input_shape: Sequence[int]
    ) -> tuple[Method, tuple[int, ...], tuple[int, ...]]:
        """Return the method as it is, the kept shape and the output's."""
        q = geometry_of(module)
        space = output_size(input_shape, q)
        out = (input_shape[0], cast(_ConvNd, module).out_channels, *space)
        if isinstance(method, GradientFilter):
            return method, (*input_shape[:2], *(-(-n // method.patch) for n in space)), out
        return method, tuple(input_shape), out


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


register(Conv1dKind())


register(Conv2dKind())


register(Conv3dKind())


register(ConvTranspose2dKind())
