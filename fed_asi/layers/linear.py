"""Linear layers on (B, F), on tokens (B, N, F), or on any input whose last mode is the features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from fed_asi.layers import tucker_gradient
from fed_asi.layers.base import LayerState, register
from fed_asi.layers.compressed import WeightKind, run
from fed_asi.layers.function import Operation
from fed_asi.layers.geometry import Geometry
from fed_asi.layers.keep import keep
from fed_asi.methods.base import ASI, GradientFilter, Method
from fed_asi.methods.forms import Kept, TuckerInput


def features_second(method: Method) -> Method:
    """Return the method with ranks given as (B, ..., F) put in the canonical order (B, F, ...)."""
    if isinstance(method, ASI) and len(method.ranks) > 2:
        batch, *space, features = method.ranks
        return replace(method, ranks=(batch, features, *space))
    return method


@dataclass(frozen=True, slots=True)
class LinearMap(Operation):
    """z = x W^T + b on the last dimension."""

    channel_dim: ClassVar[int] = -1

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return z."""
        return nn.functional.linear(x, weight, bias)

    def input_gradient(self, g: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return dX: `shape`, exact."""
        return (g @ weight).view(shape)

    def keep(self, x: Tensor, method: Method, state: LayerState) -> Kept:
        """Return x in the form `method` keeps, features as its second mode."""
        return keep(x.movedim(-1, 1), state, features_second(method))

    def weight_gradient(self, kept: Kept, g: Tensor, weight: Tensor) -> Tensor:
        """Return dW of the restored input."""
        if isinstance(kept, TuckerInput):
            ones = (1,) * (g.dim() - 2)
            none = (0,) * (g.dim() - 2)
            pointwise = Geometry(ones, ones, none, ones, False, none, 1)
            return tucker_gradient.weight_gradient(kept, g.movedim(-1, 1), weight, pointwise)
        x = kept.restore().movedim(1, -1)
        return g.flatten(0, -2).mT @ x.flatten(0, -2).to(g.dtype)

    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weight with every row multiplied by scale."""
        return weight * scale[:, None]

    def row_products(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Return <gradient, weight> for each row."""
        return (gradient * weight).sum(1)

    def respond(self, weight: Tensor, mean: Tensor) -> Tensor:
        """Return the weight applied to the mean."""
        return weight @ mean


class CompressedLinear(nn.Linear):
    """A Linear that keeps what its method says."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the layer's output, fused modules included."""
        return run(self, input, LinearMap(), 2)


class LinearKind(WeightKind):
    """The kind of nn.Linear."""

    original = nn.Linear
    compressed = CompressedLinear

    def unsupported(self, module: nn.Module, method: Method) -> str | None:
        """Return why, or None."""
        if isinstance(method, GradientFilter):
            return (
                "the gradient filter averages over space, which a linear layer has not; choose another method"
            )
        return super().unsupported(module, method)

    def not_poolable(self, module: nn.Module) -> str | None:
        """A linear layer has no space to pool."""
        return "method 'mean' is for convolutions before a global average pool; choose 'vanilla'"

    def impossible_ranks(self, module: nn.Module, ranks: Sequence[int]) -> str | None:
        """Return what is wrong with ranks (B, ..., F)."""
        features = cast(nn.Linear, module).in_features
        if len(ranks) < 2:
            return (
                f"{len(ranks)} rank {tuple(ranks)}; a linear layer needs one for batch and one for features"
            )
        if ranks[-1] > features:
            return f"rank {ranks[-1]} is above its {features} input features; lower it"
        return None

    def canonical(
        self, module: nn.Module, method: Method, input_shape: Sequence[int]
    ) -> tuple[Method, tuple[int, ...], tuple[int, ...]]:
        """Return the method and shapes with features second."""
        batch, *space, features = input_shape
        return (
            features_second(method),
            (batch, features, *space),
            (*input_shape[:-1], cast(nn.Linear, module).out_features),
        )


register(LinearKind())
