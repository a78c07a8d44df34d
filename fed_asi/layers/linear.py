"""Linear layers on (B, F), on tokens (B, N, F), or on any input whose last mode is the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from fed_asi.layers import tucker_gradient
from fed_asi.layers.base import LayerState, register
from fed_asi.layers.compressed import WeightKind, run
from fed_asi.layers.geometry import Geometry
from fed_asi.layers.gradient import WeightGradient
from fed_asi.layers.operation import Operation, WholeGradient, row_dots
from fed_asi.layers.thin import of_pixels, of_tucker
from fed_asi.methods import LayerSize, Method, Traits
from fed_asi.methods.forms import Kept, TuckerInput


def features_second(ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Return ranks in (B, F, ...) order, given in (B, ..., F) order."""
    return (ranks[0], ranks[-1], *ranks[1:-1])


def _pointwise(tokens: int) -> Geometry:
    """Return the geometry of one matrix applied to every token, for this many token dimensions."""
    ones, none = (1,) * tokens, (0,) * tokens
    return Geometry(ones, ones, none, ones, False, none, 1)


@dataclass(frozen=True, slots=True)
class LinearMap(Operation):
    """z = x W^T + b on the last dimension."""

    channel_dim: ClassVar[int] = -1

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return z."""
        return nn.functional.linear(x, weight, bias)

    def input_gradient(self, g: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return dX, exact, of shape `shape`."""
        return (g @ weight).view(shape)

    def keep(self, x: Tensor, method: Method, state: LayerState) -> Kept:
        """Return x in the form that `method` keeps, with the features as its second mode."""
        return method.reordered(features_second).keep(x.movedim(-1, 1), state)

    def weight_gradient(self, kept: Kept, g: Tensor, weight: Tensor) -> Tensor:
        """Return dW of the kept input."""
        if isinstance(kept, TuckerInput):
            return tucker_gradient.weight_gradient(kept, g.movedim(-1, 1), weight, _pointwise(g.dim() - 2))
        x = kept.restore().movedim(1, -1)
        return g.flatten(0, -2).mT @ x.flatten(0, -2).to(g.dtype)

    def gradient(self, kept: Kept, g: Tensor, weight: Tensor, *, thin: bool, own: bool) -> WeightGradient:
        """See Operation."""
        if not thin:
            return Operation.gradient(self, kept, g, weight, thin=thin, own=own)
        g, tokens = g.movedim(-1, 1), g.dim() - 2
        if not isinstance(kept, TuckerInput):
            return of_pixels(kept.restore(), g, weight, (1,) * tokens, own=own)
        left, right = tucker_gradient.thin(kept, g, weight.shape, _pointwise(tokens))
        if right is None:
            return WholeGradient(self, tucker_gradient.whole(left, right, weight))
        return of_tucker(left, right, weight)

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weight with every row multiplied by scale."""
        return weight * scale[:, None]

    def scale_outputs_(self, weight: Tensor, scale: Tensor) -> None:
        """Multiply every row of the weight by scale, in place."""
        weight.mul_(scale[:, None])

    def row_products(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Return <gradient, weight> for each row."""
        return row_dots(gradient, weight, at_once=not weight.is_cpu)

    def respond(self, weight: Tensor, mean: Tensor) -> Tensor:
        """Return the weight times the mean."""
        return weight @ mean


class CompressedLinear(nn.Linear):
    """A Linear that keeps its input as its method says."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, fused modules included."""
        return run(self, input, LinearMap(), 2)


class LinearKind(WeightKind):
    """The kind of nn.Linear."""

    original = nn.Linear
    compressed = CompressedLinear
    channel_dim = -1
    published = False

    def canonical_order(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Return ranks in (B, F, ...) order, given in (B, ..., F) order."""
        return features_second(ranks)

    def own_order(self, ranks: tuple[int, ...]) -> tuple[int, ...]:
        """Return ranks in (B, ..., F) order, given in (B, F, ...) order."""
        return (ranks[0], *ranks[2:], ranks[1])

    def traits(self, module: nn.Module) -> Traits:
        """Return the traits of a linear layer: any number of modes, the features last."""
        features = cast(nn.Linear, module).in_features
        return Traits(None, features, channel_mode=-1, spatial=False, pointwise=True)

    def size(self, module: nn.Module, shape: Sequence[int]) -> LayerSize:
        """Return the sizes of a call on (B, ..., F), with the features second."""
        batch, *tokens, features = shape
        out = (batch, cast(nn.Linear, module).out_features, *tokens)
        return LayerSize((batch, features, *tokens), out, ())

    def weight_gradient(self, module: nn.Module, x: Tensor, g: Tensor) -> Tensor:
        """Return dW of the plain layer."""
        rows = g.movedim(-1, 1).transpose(0, 1).flatten(1)
        return rows @ x.transpose(0, 1).flatten(1).mT

    def gradient_from_factors(self, module: nn.Module, kept: Kept, g: Tensor) -> Tensor | None:
        """Return dW of a Tucker form."""
        if not isinstance(kept, TuckerInput):
            return None
        return LinearMap().weight_gradient(kept, g, cast(Tensor, module.weight).detach())


register(LinearKind())
