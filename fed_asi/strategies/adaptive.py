"""The adaptive server optimizers: what FedAdagrad, FedAdam and FedYogi share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from fed_asi.strategies.server_optimizer import Moments, ServerOptimizer


@dataclass(frozen=True, slots=True)
class Adaptive(ServerOptimizer):
    """m = beta1 * m + (1 - beta1) * delta; the tensor moves by server_lr * m / (sqrt(v) + tau); v is the subclass's.

    initial_v: v before the first step; the paper asks for tau^2 at least, Flower begins at 0.
    Source: Reddi et al. 2021 (arXiv 2003.00295), algorithm 2.
    """

    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    tau: Annotated[float, Field(gt=0)] = 1e-3
    initial_v: Annotated[float, Field(ge=0)] = 0.0

    @abstractmethod
    def second(self, square: Tensor, v: Tensor) -> Tensor:
        """Return the new v. square: delta^2."""

    @property
    def initial(self) -> Mapping[str, float]:
        """The two moments."""
        return {"m": 0.0, "v": self.initial_v}

    def rate(self, before: Mapping[str, Tensor]) -> tuple[float | Tensor, Moments]:
        """Return the learning rate of this step, and the state for the next one."""
        return self.server_lr, {}

    def step(self, delta: Tensor, before: Mapping[str, Tensor]) -> tuple[Tensor, Moments]:
        """Return the step by both moments."""
        m = (1.0 - self.beta1) * delta + self.beta1 * before["m"]
        v = self.second(delta.square(), before["v"])
        rate, known = self.rate(before)
        return rate * m / (v.sqrt() + self.tau), {"m": m, "v": v, **known}
