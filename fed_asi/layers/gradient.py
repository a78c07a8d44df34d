"""A weight gradient in the shape in which it is found, and who may take it there.

It is whole (operation.py), or the product of two thin matrices (thin.py) that need not be multiplied out: what
training asks of one is the same for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import Tensor


class WeightGradient(ABC):
    """dW of one layer; it is nobody else's, so it may be scaled in place."""

    @abstractmethod
    def products(self, weight: Tensor) -> Tensor:
        """Return <dW, W> for each output channel: (C',)."""

    @abstractmethod
    def scale_(self, scale: Tensor) -> None:
        """Multiply every output channel by scale: (C',)."""

    @abstractmethod
    def multiply_(self, factor: Tensor) -> None:
        """Multiply all of it by a scalar."""

    @abstractmethod
    def respond(self, mean: Tensor) -> Tensor:
        """Return what dW gives for an input that is mean: (C,) everywhere: (C',)."""

    @abstractmethod
    def squared_norm(self) -> Tensor:
        """Return ||dW||^2, a scalar."""

    @abstractmethod
    def add_to_(self, target: Tensor, factor: float) -> None:
        """Add factor * dW to target, which has dW's shape."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield dW in parts: the output channels, and dW of these."""

    @abstractmethod
    def whole(self) -> Tensor:
        """Return dW in the weight's shape."""


Part = tuple[Tensor, Tensor | WeightGradient]  # a parameter and its gradient


class Sink(Protocol):
    """Who takes gradients where a layer finds them, in place of autograd: nothing of them need be whole then."""

    def see(self, parameters: Sequence[Tensor]) -> None:
        """Learn that a forward used these trained parameters."""

    def takes(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether the gradients of these parameters are wanted here, and not by autograd."""

    def take_(self, parts: Sequence[Part]) -> None:
        """Take the gradients of one layer, which needs its parameters no more."""
