"""FedAdam: Adam at the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fed_asi.strategies.adaptive import Adaptive
from fed_asi.strategies.base import register
from fed_asi.strategies.server_optimizer import Moments


@register
@dataclass(frozen=True, slots=True)
class FedAdam(Adaptive):
    """v = beta2 * v + (1 - beta2) * delta^2.

    bias_correction: multiplies server_lr by sqrt(1 - beta2^(t + 1)) / (1 - beta1^(t + 1)) in a tensor's step t, as
    Flower's FedAdam does; the paper's has none.
    Source: Reddi et al. 2021 (arXiv 2003.00295), algorithm 2.
    """

    name: ClassVar[str] = "fedadam"
    server_lr: Annotated[float, Field(gt=0)] = 0.1
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    bias_correction: bool = False

    def second(self, square: Tensor, v: Tensor) -> Tensor:
        """Return the running mean of squares."""
        return self.beta2 * v + (1.0 - self.beta2) * square

    @property
    def initial(self) -> Mapping[str, float]:
        """The two moments, and if the bias is corrected, the number of steps."""
        both = {"m": 0.0, "v": self.initial_v}
        return both | {"t": 0.0} if self.bias_correction else both

    def rate(self, before: Mapping[str, Tensor]) -> tuple[float | Tensor, Moments]:
        """Return the learning rate, with the bias of moments that start at 0 corrected if asked for."""
        if not self.bias_correction:
            return self.server_lr, {}
        step = before["t"] + 1.0
        correction = (1.0 - self.beta2 ** (step + 1.0)).sqrt() / (1.0 - self.beta1 ** (step + 1.0))
        return self.server_lr * correction, {"t": step}
