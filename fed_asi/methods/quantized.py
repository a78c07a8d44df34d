"""The input kept in 8 or 4 bits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from fed_asi.errors import ConfigError
from fed_asi.methods.base import Keeper, LayerInput, Method, Ranks, register
from fed_asi.methods.forms import Kept, LowBits
from fed_asi.methods.sizes import LayerSize, Passes


@register
@dataclass(frozen=True, slots=True)
class Quantized(Method):
    """The input is kept in 8 or 4 bits an element, with an offset and a scale for each sample."""

    kind: ClassVar[str] = "quantized"
    by_default: ClassVar[bool] = True
    bits: int = 8
    centered: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (4, 8):
            raise ConfigError(f"quantized: bits must be 8 or 4, not {self.bits!r}")

    @property
    def slope_bits(self) -> int:
        """The same bits as for the input."""
        return self.bits

    def form(self, x: Tensor, keeper: Keeper) -> Kept:
        """Return x: (N, C, *S) rounded."""
        return LowBits.of(x, self.bits)

    def kept_bytes(self, dims: Sequence[int], dtype: torch.dtype) -> int:
        """Return the bytes of levels, offsets and scales."""
        return LowBits.numel_bytes(dims[0], prod(dims[1:]), self.bits, max(dtype.itemsize, 4))

    def published_bytes(self, size: LayerSize, ranks: Ranks = (), element_bytes: int = 4) -> int:
        """Return the bytes of levels, offsets and scales."""
        return LowBits.numel_bytes(size.dims[0], prod(size.dims[1:]), self.bits, element_bytes)

    def overhead_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return one for each element."""
        return prod(size.dims)

    def keeping(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return the passes over the input: extremes, offset, scale, rounding, and the packing of 4 bits."""
        passes = 10 if self.bits == 8 else 12
        return Passes(passes, (passes // 2) * prod(size.dims))

    def restoring(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return the passes that restore the input."""
        passes = 4 if self.bits == 8 else 6
        return Passes(passes, (passes // 2) * prod(size.dims))

    @classmethod
    def propose(cls, seen: LayerInput) -> Iterator[tuple[Method, float | None]]:
        """Yield 8 and 4 bits, centred or not."""
        if not seen.published:
            yield from ((Quantized(bits, centered=c), None) for bits in (8, 4) for c in seen.centering)

    def words(self) -> str:
        """Return how many bits."""
        return f"{self.bits} bits"
