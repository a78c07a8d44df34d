"""FedProx: FedAvg whose devices are pulled back to the weights they were sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from fed_asi.strategies.base import register
from fed_asi.strategies.fedavg import FedAvg
from fed_asi.strategies.local import AtDevice, Local


class Pull(Local):
    """Local SGD on loss + mu / 2 * |w - w_sent|^2, over the tensors that the device trains."""

    def __init__(self, given: AtDevice, mu: float) -> None:
        super().__init__(given)
        self._mu = mu

    def held(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the weights it was sent, towards which it is pulled."""
        return {"start": self.given.start}

    def objective_(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Add mu * (w - w_sent)."""
        gradient.add_(weight - self.given.start[name], alpha=self._mu)


@register
@dataclass(frozen=True, slots=True)
class FedProx(FedAvg):
    """FedAvg with a proximal term in each device's objective; its gradient is clipped with that of the loss.

    Source: Li et al. 2020 (arXiv 1812.06127), algorithm 2.
    """

    name: ClassVar[str] = "fedprox"
    in_steps: ClassVar[bool] = True
    holds: ClassVar[frozenset[str]] = frozenset({"start"})
    mu: Annotated[float, Field(ge=0)] = 0.01

    def at_device(self, given: AtDevice) -> Local:
        """Return local SGD with the pull."""
        return Pull(given, self.mu)
