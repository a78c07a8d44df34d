"""FedAvg: the weighted mean of what devices trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fed_asi.strategies.aggregate import average
from fed_asi.strategies.base import Combined, Round, State, Strategy, register


@register
@dataclass(frozen=True, slots=True)
class FedAvg(Strategy):
    """Every tensor becomes the weighted mean over the devices that trained it.

    Source: McMahan et al. 2017 (arXiv 1602.05629), algorithm 1; by tensor it is this project's.
    """

    name: ClassVar[str] = "fedavg"

    def combine(self, given: Round, state: State) -> Combined:
        """Return the means; there is no state."""
        return Combined(average(given.updates, given.tensors), state)
