"""FedYogi: Adam at the server, with a second moment that changes by at most the new square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fed_asi.strategies.adaptive import Adaptive
from fed_asi.strategies.base import register


@register
@dataclass(frozen=True, slots=True)
class FedYogi(Adaptive):
    """v = v - (1 - beta2) * delta^2 * sign(v - delta^2).

    Source: Reddi et al. 2021 (arXiv 2003.00295), algorithm 2.
    """

    name: ClassVar[str] = "fedyogi"
    server_lr: Annotated[float, Field(gt=0)] = 0.01
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99

    def second(self, square: Tensor, v: Tensor) -> Tensor:
        """Return v moved towards the square."""
        return v - (1.0 - self.beta2) * square * torch.sign(v - square)
