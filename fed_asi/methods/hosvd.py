"""A truncated SVD for every mode at every step: the predecessor of ASI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import Tensor

from fed_asi import tucker
from fed_asi.errors import ConfigError
from fed_asi.methods.base import Keeper, LayerInput, Method, Ranks, register
from fed_asi.methods.forms import Kept, TuckerInput
from fed_asi.methods.parts import computing, split
from fed_asi.methods.sizes import LayerSize, Passes
from fed_asi.methods.tucker_method import TuckerMethod, projection

_MODE_CALLS = 24  # kernel calls for one mode: Gram matrix, eigenvalues, their shares, the product
_EIGH = 9  # times d^3: the symmetric eigenvalue problem of a d x d Gram matrix, with vectors


@register
@dataclass(frozen=True, slots=True)
class HOSVD(TuckerMethod):
    """A Tucker form computed anew in every step, in which each mode holds a share `epsilon` of the energy."""

    kind: ClassVar[str] = "hosvd"
    sized: ClassVar[bool] = False
    must_fit: ClassVar[bool] = True
    epsilon: float = 0.8
    centered: bool = False

    def __post_init__(self) -> None:
        check_share(self.kind, self.epsilon)

    def form(self, x: Tensor, keeper: Keeper) -> Kept:
        """Return the Tucker forms of the micro-batches of x: (N, C, *S), one after another."""
        kept = TuckerInput(shape=x.shape, dtype=x.dtype)
        for part in split(x, keeper.micro_batch):
            for sample in computing(part).unbind():
                core, found = tucker.hosvd(sample[None], self.epsilon)
                kept.add(core.to(x.dtype), [None if f is None else f.to(x.dtype) for f in found])
        return kept

    def published_overhead(self, size: LayerSize, ranks: Ranks) -> int:
        """Return one SVD for each mode."""
        total = prod(size.dims)
        sides = [(d, total // d) for d in size.dims]
        return sum(max(pair) ** 2 * min(pair) for pair in sides)

    def overhead_macs(self, size: LayerSize, ranks: Ranks = ()) -> int:
        """Return those of Gram matrices, their eigenvalue problems and the projection."""
        total = prod(size.dims)
        return sum(d * total + _EIGH * d**3 for d in size.dims) + projection(size.dims, ranks)

    def keeping(self, size: LayerSize, ranks: Ranks = ()) -> Passes:
        """Return the passes of every mode's eigenvalue problem and of choosing its rank."""
        return Passes(_MODE_CALLS * len(size.dims))

    @classmethod
    def propose(cls, seen: LayerInput, epsilon: float = 0.8) -> Iterator[tuple[Method, float | None]]:
        """Yield it for every layer but the classifier."""
        if not seen.head:
            yield HOSVD(epsilon), None


def check_share(kind: str, epsilon: object) -> None:
    """Raise ConfigError unless a share of energy is above 0 and at most 1."""
    if isinstance(epsilon, bool) or not isinstance(epsilon, (int, float)) or not 0 < epsilon <= 1:
        raise ConfigError(f"{kind}: epsilon must be above 0 and at most 1, not {epsilon!r}")
