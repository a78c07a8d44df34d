"""A Tucker core in bases that calibration found once and that stay fixed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fed_asi import tucker
from fed_asi.methods.base import Keeper, LayerInput, Method, Ranks, register
from fed_asi.methods.forms import Kept, TuckerInput
from fed_asi.methods.hosvd import check_share
from fed_asi.methods.parts import computing
from fed_asi.methods.sizes import LayerSize
from fed_asi.methods.tucker_method import TuckerMethod, projection


@register
@dataclass(frozen=True, slots=True)
class FixedSubspace(TuckerMethod):
    """A Tucker core in factors found once, by calibration; the batch mode is kept whole.

    A plan brings the factors. Without a plan, or for an input of another size, they are those of the first batch.
    Source: LANCE, arXiv 2509.21617.
    """

    kind: ClassVar[str] = "fixed"
    aliases: ClassVar[tuple[str, ...]] = ("fixed-subspace", "lance")
    fleet_name: ClassVar[str] = "fixed-subspace"
    sized: ClassVar[bool] = False
    must_fit: ClassVar[bool] = True
    epsilon: float = 0.7
    centered: bool = False

    def __post_init__(self) -> None:
        check_share(self.kind, self.epsilon)

    def calibrated(self, x: Tensor) -> tucker.Factors:
        """Return the fixed factors, one for each mode of x: (N, C, *S), the calibration batch, centred if need be."""
        whole = computing(x).unsqueeze(0)
        found = [tucker.leading_factor(tucker.unfold(whole, m)[0], self.epsilon) for m in range(1, x.dim())]
        return [None, *found]

    def form(self, x: Tensor, keeper: Keeper) -> Kept:
        """Return x: (N, C, *S) as a core in the layer's fixed factors."""
        known = keeper.factors
        if known is None or any(
            f is not None and f.shape[0] != d for f, d in zip(known, x.shape, strict=True)
        ):
            keeper.factors = known = self.calibrated(x)
        whole = computing(x).unsqueeze(0)
        shared = [None if f is None else f.to(whole).unsqueeze(0) for f in known]
        kept = TuckerInput(shape=x.shape, dtype=x.dtype)
        core = tucker.project(whole, shared).to(x.dtype)
        kept.add(core, [None if f is None else f.to(x.dtype) for f in shared])
        return kept

    def published_overhead(self, size: LayerSize, ranks: Ranks) -> int:
        """Return the projection alone."""
        return projection(size.dims, ranks)

    def overhead_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return the multiply-accumulates of the projection."""
        return projection(size.dims, ranks)

    @classmethod
    def propose(cls, seen: LayerInput, epsilon: float = 0.7) -> Iterator[tuple[Method, float | None]]:
        """Yield it for every layer but the classifier."""
        if not seen.head:
            yield FixedSubspace(epsilon), None
