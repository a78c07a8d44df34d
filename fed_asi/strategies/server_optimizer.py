"""The server as an optimizer: the mean of what devices moved is its pseudo-gradient, tensor by tensor."""

from __future__ import annotations

from abc import abstractmethod
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

    @property
    @abstractmethod
    def initial(self) -> Mapping[str, float]:
        """What each moment is before a tensor's first step, by letter."""

    @abstractmethod
    def step(self, delta: Tensor, before: Mapping[str, Tensor]) -> tuple[Tensor, Moments]:
        """Return by how much a tensor moves, and its new moments; all float64, in its shape.

        delta: the mean of the updates less the tensor. before: its moments.
        """

    def combine(self, given: Round, state: State) -> Combined:
        """Return the tensors after one step of the server's, and their moments as "LETTER:NAME"."""
        tensors, moments = {}, dict(state)
        for name, tensor in given.tensors.items():
            tensors[name] = tensor.clone()
            for places in given.places(name):
                known = {letter: self._moment(moments, letter, name, tensor) for letter in self.initial}
                now = places.of(tensor).to(torch.float64)
                before = {letter: places.of(moment) for letter, moment in known.items()}
                moved, after = self.step(places.mean() - now, before)
                tensors[name] = places.put(tensors[name], rounded(now + moved, tensor))
                moments |= {f"{letter}:{name}": places.put(known[letter], after[letter]) for letter in known}
        return Combined(tensors, moments)

    def _moment(self, state: State, letter: str, name: str, tensor: Tensor) -> Tensor:
        found = state.get(f"{letter}:{name}")
        if found is None:
            return torch.full(tensor.shape, self.initial[letter], dtype=torch.float64)
        return found
