"""FedAvg: the weighted mean of what devices trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fed_asi.strategies.base import Combined, Round, State, Strategy, register


@register
@dataclass(frozen=True, slots=True)
class FedAvg(Strategy):
    """Every tensor, or part of one, becomes the weighted mean over the devices that trained it.

    Source: McMahan et al. 2017 (arXiv 1602.05629), algorithm 1; averaging by tensor and place is this project's own.
    """

    name: ClassVar[str] = "fedavg"

    def combine(self, given: Round, state: State) -> Combined:
        """Return the means; there is no state."""
        return Combined(given.means(), state)
