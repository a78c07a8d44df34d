"""FedAdagrad: the server takes smaller steps where it has moved much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fed_asi.strategies.adaptive import Adaptive
from fed_asi.strategies.base import register


@register
@dataclass(frozen=True, slots=True)
class FedAdagrad(Adaptive):
    """v = v + delta^2.

    Source: Reddi et al. 2021 (arXiv 2003.00295), algorithm 2.
    """

    name: ClassVar[str] = "fedadagrad"
    server_lr: Annotated[float, Field(gt=0)] = 0.1
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def second(self, square: Tensor, v: Tensor) -> Tensor:
        """Return the sum of squares."""
        return v + square
