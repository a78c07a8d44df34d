"""Norm bounding: no device moves the weights further than a bound before they are averaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from fed_asi.strategies.aggregate import Update, Weights
from fed_asi.strategies.base import Combined, Round, State, Strategy, register, rounded


@register
@dataclass(frozen=True, slots=True)
class NormBound(Strategy):
    """FedAvg of updates that are scaled down to max_norm, the 2-norm of all that a device moved.

    Source: Sun et al. 2019 (arXiv 1911.07963), section 5.
    """

    name: ClassVar[str] = "norm-bound"
    max_norm: Annotated[float, Field(gt=0)]

    def combine(self, given: Round, state: State) -> Combined:
        """Return the means of the bounded updates; there is no state."""
        bounded = replace(given, updates=tuple(self._bounded(one, given.tensors) for one in given.updates))
        means = {name: bounded.mean(name) for name in given.tensors}
        tensors = {
            name: tensor.clone() if (mean := means[name]) is None else rounded(mean, tensor)
            for name, tensor in given.tensors.items()
        }
        return Combined(tensors, state)

    def _bounded(self, update: Update, tensors: Weights) -> Update:
        moved = {n: t.to(torch.float64) - tensors[n].to(torch.float64) for n, t in update.tensors.items()}
        norm = sqrt(sum(float(one.square().sum()) for one in moved.values()))
        scale = min(1.0, self.max_norm / norm) if norm > 0.0 else 1.0
        if scale == 1.0:
            return update
        return replace(
            update, tensors={n: tensors[n].to(torch.float64) + scale * d for n, d in moved.items()}
        )
