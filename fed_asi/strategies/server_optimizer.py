"""The server as an optimizer: the mean of what devices moved is its pseudo-gradient, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from fed_asi.strategies.base import Combined, Round, State, Strategy, rounded

Moments = dict[str, Tensor]  # of one tensor, by letter


@dataclass(frozen=True, slots=True)
class ServerOptimizer(Strategy):
    """Base of the strategies that move each global tensor by (mean of the updates - tensor) and moments of it.

    A tensor that no device trained in a round keeps its moments as they are. server_lr: the server's step.
    """

    server_lr: Annotated[float, Field(gt=0)] = 1.0

    def step(self, delta: Tensor, before: Mapping[str, Tensor]) -> tuple[Tensor, Moments]:
        """Return by how much a tensor moves, and its new moments; all float64, in its shape or of one number.

        delta: the mean of the updates less the tensor. before: its moments; empty the first time.
        """
        raise NotImplementedError

    def combine(self, given: Round, state: State) -> Combined:
        """Return the tensors after one step of the server's, and their moments as "LETTER:NAME"."""
        tensors, moments = {}, dict(state)
        for name, tensor in given.tensors.items():
            mean = given.mean(name)
            if mean is None:
                tensors[name] = tensor.clone()
                continue
            before = {
                key.partition(":")[0]: one for key, one in state.items() if key.partition(":")[2] == name
            }
            now = tensor.to(torch.float64)
            moved, after = self.step(mean - now, before)
            tensors[name] = rounded(now + moved, tensor)
            moments |= {f"{letter}:{name}": moment for letter, moment in after.items()}
        return Combined(tensors, moments)
