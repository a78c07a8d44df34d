"""Norm bounding: the change of each device is limited in norm before averaging."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from fed_asi.strategies.aggregate import Update, Weights
from fed_asi.strategies.base import Combined, Round, State, Strategy, register
from fed_asi.strategies.places import base_of


@register
@dataclass(frozen=True, slots=True)
class NormBound(Strategy):
    """FedAvg of updates that are scaled down to max_norm, in the 2-norm over everything that a device changed.

    Source: Sun et al. 2019 (arXiv 1911.07963), section 5.
    """

    name: ClassVar[str] = "norm-bound"
    max_norm: Annotated[float, Field(gt=0)]

    def combine(self, given: Round, state: State) -> Combined:
        """Return the means of the bounded updates; there is no state."""
        bounded = replace(given, updates=tuple(self._bounded(one, given.tensors) for one in given.updates))
        return Combined(bounded.means(), state)

    def _bounded(self, update: Update, tensors: Weights) -> Update:
        start = {name: base_of(update, name, tensors[name]) for name in update.tensors}
        moved = {name: tensor.to(torch.float64) - start[name] for name, tensor in update.tensors.items()}
        norm = sqrt(sum(float(one.square().sum()) for one in moved.values()))
        scale = min(1.0, self.max_norm / norm) if norm > 0.0 else 1.0
        if scale == 1.0:
            return update
        return replace(update, tensors={name: start[name] + scale * one for name, one in moved.items()})
