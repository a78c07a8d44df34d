"""A weight gradient in the form in which it is computed, and the sink that can take it in that form.

It is either whole (operation.py) or a product of two thin matrices (thin.py), which need not be multiplied out.
Training uses both through the same methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

from torch import Tensor


class WeightGradient(ABC):
    """dW of one layer; nothing else refers to it, so it may be scaled in place.

    sparse: whether most of it is zero, and not stored.
    """

    sparse: ClassVar[bool] = False

    @abstractmethod
    def products(self, weight: Tensor) -> Tensor:
        """Return <dW, W> for each output channel: (C',)."""

    @abstractmethod
    def scale_(self, scale: Tensor) -> None:
        """Multiply every output channel by scale: (C',)."""

    @abstractmethod
    def multiply_(self, factor: Tensor) -> None:
        """Multiply dW by a scalar."""

    @abstractmethod
    def respond(self, mean: Tensor) -> Tensor:
        """Return the response of dW to an input that is mean: (C,) everywhere: (C',)."""

    @abstractmethod
    def squared_norm(self) -> Tensor:
        """Return ||dW||^2, a scalar."""

    @abstractmethod
    def add_to_(self, target: Tensor, factor: float) -> None:
        """Add factor * dW to target, which has the shape of the weight."""

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield dW in parts: a slice of output channels, and dW of those channels."""

    @abstractmethod
    def whole(self) -> Tensor:
        """Return dW in the weight's shape."""


Part = tuple[Tensor, Tensor | WeightGradient]  # a parameter and its gradient


class Sink(Protocol):
    """Takes gradients as soon as a layer computes them, in place of autograd, so that no dW needs to be whole."""

    def see(self, parameters: Sequence[Tensor]) -> None:
        """Register that a forward pass used these trained parameters."""

    def takes(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether this sink, and not autograd, takes the gradients of these parameters."""

    def take_(self, parts: Sequence[Part]) -> None:
        """Take the gradients of one layer; the layer no longer needs these parameters in this backward pass."""

    def holds(self, parameter: Tensor, gradient: WeightGradient) -> bool:
        """Take a sparse gradient as it is, of parameters that it does not take otherwise; return whether it did."""
