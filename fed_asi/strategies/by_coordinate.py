"""Strategies that treat every number separately, over the devices that trained it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fed_asi.strategies.base import Combined, Round, State, Strategy
from fed_asi.strategies.places import Places


@dataclass(frozen=True, slots=True)
class ByCoordinate(Strategy):
    """Base of strategies that make each number from the sorted numbers of the devices; devices count alike."""

    weighs: ClassVar[bool] = False

    @abstractmethod
    def middle(self, ascending: Tensor) -> Tensor:
        """Return the new numbers. ascending: (devices, ...), sorted over devices, float64."""

    def combine(self, given: Round, state: State) -> Combined:
        """Return each tensor's middle over the devices that trained it; there is no state."""

        def made(places: Places, _now: Tensor) -> Tensor:
            ascending = torch.stack([values for *_, values in places.said]).sort(0).values
            return self.middle(ascending.to(torch.float64))

        return Combined(given.combined(made), state)
