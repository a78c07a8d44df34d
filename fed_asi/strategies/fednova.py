"""FedNova: each update is normalised by the number of local steps behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fed_asi.strategies.base import Combined, Conditions, Round, State, Strategy, register
from fed_asi.strategies.places import Places


@register
@dataclass(frozen=True, slots=True)
class FedNova(Strategy):
    """x + (sum_k p_k a_k) * sum_k p_k (y_k - x) / a_k over the devices that trained a tensor, p_k their weights.

    a_k is the number of local steps, or with momentum what `reach` says. Where all a_k are alike it is FedAvg.
    Source: Wang et al. 2020 (arXiv 2007.07481), equations 6 and 7, and section 4 for momentum.
    """

    name: ClassVar[str] = "fednova"
    counts_steps: ClassVar[bool] = True

    def problems(self, run: Conditions) -> Iterator[str]:
        """Yield also that steps cannot be counted if momentum acts in every micro-batch."""
        yield from Strategy.problems(self, run)
        if run.momentum > 0.0 and run.update != "step":
            yield (
                f'train.update: "{run.update}" has momentum from micro-batch to micro-batch, and "fednova" counts '
                'steps; use update = "step", or momentum = 0'
            )

    def combine(self, given: Round, state: State) -> Combined:
        """Return the normalised averages; there is no state."""

        def made(places: Places, now: Tensor) -> Tensor:
            direction, reached = torch.zeros_like(now), 0.0
            for update, share, trained in places.said:
                a = reach(update.steps, given.momentum)
                direction += (trained.to(torch.float64) - now) * (share / places.total / a)
                reached += share / places.total * a
            return now + reached * direction

        return Combined(given.combined(made), state)


def reach(steps: int, momentum: float) -> float:
    """Return the 1-norm of the weights with which the gradients of these steps enter the final position.

    Source: Wang et al. 2020 (arXiv 2007.07481), section 4: (tau - rho (1 - rho^tau) / (1 - rho)) / (1 - rho).
    """
    if momentum == 0.0:
        return float(steps)
    return (steps - momentum * (1.0 - momentum**steps) / (1.0 - momentum)) / (1.0 - momentum)
