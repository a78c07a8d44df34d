"""The input as it is: what plain PyTorch keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from fed_asi.methods.base import LayerInput, Method, register


@register
@dataclass(frozen=True, slots=True)
class Vanilla(Method):
    """The input is kept whole, as in plain PyTorch."""

    kind: ClassVar[str] = "vanilla"
    exact: ClassVar[bool] = True
    keeps_whole: ClassVar[bool] = True
    pools_first: ClassVar[bool] = False
    by_default: ClassVar[bool] = True
    centered: bool = False

    def words(self) -> str:
        """Return "whole"."""
        return "whole"

    @classmethod
    def propose(cls, seen: LayerInput) -> Iterator[tuple[Method, float | None]]:
        """Yield it, centred or not; calibration need not try either, as both are exact."""
        yield from ((Vanilla(centered=c), None) for c in ((False,) if seen.published else (False, True)))
