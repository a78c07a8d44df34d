"""A layer of which nothing is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fed_asi.methods.base import Method, register


@register
@dataclass(frozen=True, slots=True)
class Frozen(Method):
    """Weight and bias are not trained, and the input is not kept; dX is exact."""

    kind: ClassVar[str] = "frozen"
    trains_weight: ClassVar[bool] = False
    trains_bias: ClassVar[bool] = False
    plannable: ClassVar[bool] = False
