"""The server as an optimizer: the mean change of the devices is its pseudo-gradient, tensor by tensor."""

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
    """Base of strategies that move each global tensor by (mean of the updates - tensor) and its moments.

    A tensor that no device trained in a round keeps its moments. server_lr: the learning rate of the server.
    """

    server_lr: Annotated[float, Field(gt=0)] = 1.0

    @property
    @abstractmethod
    def initial(self) -> Mapping[str, float]:
        """The value of each moment before the first step of a tensor, by letter."""

    @abstractmethod
    def step(self, delta: Tensor, before: Mapping[str, Tensor]) -> tuple[Tensor, Moments]:
        """Return the step of a tensor, and its new moments; all float64, in its shape.

        delta: the mean of the updates minus the tensor. before: its moments.
        """

    def combine(self, given: Round, state: State) -> Combined:
        """Return the tensors after one server step, and their moments as "LETTER:NAME"."""
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
