"""Only the bias is trained; its gradient needs nothing of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fed_asi.methods.base import Method, register


@register
@dataclass(frozen=True, slots=True)
class BiasOnly(Method):
    """Only the bias (of the layer or of its batch norm) is trained; the input is not kept."""

    kind: ClassVar[str] = "bias"
    aliases: ClassVar[tuple[str, ...]] = ("bias-only",)
    trains_weight: ClassVar[bool] = False
    by_default: ClassVar[bool] = True

    def words(self) -> str:
        """Return "bias only"."""
        return "bias only"
