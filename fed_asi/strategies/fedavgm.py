"""FedAvgM: the server has momentum."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fed_asi.strategies.base import register
from fed_asi.strategies.server_optimizer import Moments, ServerOptimizer


@register
@dataclass(frozen=True, slots=True)
class FedAvgM(ServerOptimizer):
    """m = server_momentum * m + delta; the tensor moves by server_lr * m.

    Source: Hsu et al. 2019 (arXiv 1909.06335), section 4.3.
    """

    name: ClassVar[str] = "fedavgm"
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9

    @property
    def initial(self) -> Mapping[str, float]:
        """No momentum."""
        return {"m": 0.0}

    def step(self, delta: Tensor, before: Mapping[str, Tensor]) -> tuple[Tensor, Moments]:
        """Return the step along the momentum."""
        momentum = delta + self.server_momentum * before["m"]
        return self.server_lr * momentum, {"m": momentum}
