"""The spatial mean of the input, which is all that a pointwise convolution before a global pool needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from fed_asi.methods.base import LayerInput, Method, Ranks, register
from fed_asi.methods.sizes import LayerSize, Traits


@register
@dataclass(frozen=True, slots=True)
class SpatialMean(Method):
    """Only the spatial mean of the input is kept.

    Exact for a 1x1 convolution with stride 1 whose output only feeds a global average pool.
    """

    kind: ClassVar[str] = "mean"
    aliases: ClassVar[tuple[str, ...]] = ("spatial-mean",)
    exact: ClassVar[bool] = True
    needs_pool: ClassVar[bool] = True
    by_default: ClassVar[bool] = True

    def unsupported(self, layer: Traits) -> str | None:
        """Return why pooling the input first would change the layer; None where it would not."""
        if not layer.spatial:
            return "method 'mean' is for convolutions before a global average pool; choose 'vanilla'"
        if not layer.poolable:
            return (
                "method 'mean' needs a 1x1 convolution, stride 1, no padding, groups 1; choose another method"
            )
        return None

    def published_bytes(self, size: LayerSize, ranks: Ranks = (), element_bytes: int = 4) -> int:
        """Return the bytes of (B, C)."""
        return element_bytes * prod(size.dims[:2])

    def dw_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return those of one matrix product."""
        return size.dense * size.dims[0]

    @classmethod
    def propose(cls, seen: LayerInput) -> Iterator[tuple[Method, float | None]]:
        """Yield it for a layer before a global pool."""
        if seen.pooled and not seen.published:
            yield SpatialMean(), None

    def words(self) -> str:
        """Return "spatial mean"."""
        return "spatial mean"
