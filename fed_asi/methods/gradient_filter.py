"""Input and output gradient averaged over patches (the gradients are in fed_asi/layers/gradient_filter.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from fed_asi.errors import ConfigError
from fed_asi.methods.base import LayerInput, Method, Ranks, published_forward, register
from fed_asi.methods.sizes import LayerSize, Passes, Traits


@register
@dataclass(frozen=True, slots=True)
class GradientFilter(Method):
    """Input and output gradient are averaged over patches; dX is approximate too.

    Source: Yang et al., arXiv 2301.00330.
    """

    kind: ClassVar[str] = "filter"
    aliases: ClassVar[tuple[str, ...]] = ("gradient-filter",)
    fleet_name: ClassVar[str] = "gradient-filter"
    restores: ClassVar[bool] = False
    pools_first: ClassVar[bool] = False
    must_fit: ClassVar[bool] = True
    patch: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.patch, int) or isinstance(self.patch, bool) or self.patch < 1:
            raise ConfigError(f"filter: patch must be an integer above 0, not {self.patch!r}")

    def unsupported(self, layer: Traits) -> str | None:
        """Return why a layer without spatial modes, or a transposed convolution, is refused; None for others."""
        if not layer.spatial:
            return "the gradient filter averages over space, which a linear layer does not have; choose another method"
        if layer.transposed:
            return "the gradient filter is not defined for transposed convolutions; choose another method"
        return None

    def kept_dims(self, dims: Ranks, out: Ranks) -> Ranks:
        """Return (N, C) and the patches that cover the output."""
        return (*dims[:2], *self._grid(out[2:]))

    def published_bytes(self, size: LayerSize, ranks: Ranks = (), element_bytes: int = 4) -> int:
        """Return the bytes of the patches' means."""
        return element_bytes * prod(size.dims[:2]) * prod(self._grid(size.out[2:]))

    def published_flops(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return forward and dW on the input's grid, which reproduces the poster's figures to 0.02."""
        return 2 * published_forward(size)

    def dw_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return those of one product for each patch."""
        patches = size.out[0] * prod(self._grid(size.out[2:]))
        return size.dims[1] * size.out[1] // size.groups * patches

    def dx_macs(self, size: LayerSize) -> int:
        """Return those of one product for each patch."""
        return self.dw_macs(size)

    def keeping(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return the pooling of the input."""
        return Passes(1, prod(size.dims))

    def restoring(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return the pooling of the gradient, the layout of the products, and the spreading of dX over patches."""
        return Passes(10, prod(size.out) + prod(size.dims))

    @classmethod
    def propose(cls, seen: LayerInput, patch: int = 2) -> Iterator[tuple[Method, float | None]]:
        """Yield it for every layer but the classifier."""
        if not seen.head:
            yield GradientFilter(patch), None

    def _grid(self, space: Sequence[int]) -> tuple[int, ...]:
        return tuple(-(-n // self.patch) for n in space)
