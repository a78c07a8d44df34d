"""The linear map of a layer and its gradients; every kind of layer with a weight has one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor

from fed_asi.layers.base import LayerState
from fed_asi.layers.gradient import WeightGradient
from fed_asi.layers.slices import PartGradient, Slice
from fed_asi.layers.thresholds import PRODUCTS_IN_CACHE
from fed_asi.methods import Method
from fed_asi.methods.forms import Kept, SomeChannels

AT_ONCE = 1 << 14  # elements of a product of two weights computed at one time
SHARES = {True: 8, False: 64}  # of a large weight, an eighth at one time where memory is at hand, else a 64th


class Operation(ABC):
    """A layer's linear map of x: (N, C, *S) to z: (N, C', *S'), and its gradients."""

    channel_dim: ClassVar[int] = 1

    @abstractmethod
    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return z."""

    @abstractmethod
    def input_gradient(self, g: Tensor, weight: Tensor, shape: torch.Size) -> Tensor:
        """Return dX, of shape `shape`, for g = dz."""

    @abstractmethod
    def weight_gradient(self, kept: Kept, g: Tensor, weight: Tensor) -> Tensor:
        """Return dW of the input that `kept` stands for, in the shape of the weight."""

    def gradient(self, kept: Kept, g: Tensor, weight: Tensor, *, thin: bool, own: bool) -> WeightGradient:
        """Return dW as a WeightGradient. thin: as a thin product wherever it is one; else only where that is quicker.

        own: nothing else reads g.
        """
        del thin, own  # unused: this map has no thin products
        return WholeGradient(self, self.weight_gradient(kept, g, weight))

    def of_channels(self, channels: Tensor) -> Operation:
        """Return the map of these input channels alone; for a depthwise map, with only the outputs they lead to."""
        del channels  # unused: the map is the same for any number of channels
        return self

    def part_gradient(
        self, kept: SomeChannels, g: Tensor, weight: Tensor, part: Slice, *, thin: bool, own: bool
    ) -> PartGradient:
        """Return dW of the kept channels. part: their places in the weight; thin, own: as for `gradient`."""
        inner = self.of_channels(kept.channels)
        if part.dim == 0:
            g, own = g.index_select(self.channel_dim, part.index), True
        shape = weight.new_empty(1).expand(part.shape_of(weight))
        found = inner.gradient(kept.part(), g, shape, thin=thin, own=own)
        return PartGradient(found, part, kept.channels, weight)

    @abstractmethod
    def scale_outputs(self, weight: Tensor, scale: Tensor) -> Tensor:
        """Return the weight with each output channel multiplied by its scale: (C',)."""

    @abstractmethod
    def scale_outputs_(self, weight: Tensor, scale: Tensor) -> None:
        """Multiply each output channel of the weight by its scale: (C',), in place."""

    @abstractmethod
    def row_products(self, gradient: Tensor, weight: Tensor) -> Tensor:
        """Return <gradient, weight> for each output channel: (C',), without a temporary of their size."""

    @abstractmethod
    def respond(self, weight: Tensor, mean: Tensor) -> Tensor:
        """Return the output, without bias, for an input that is mean: (C,) everywhere: (C',)."""

    def keep(self, x: Tensor, method: Method, state: LayerState) -> Kept:
        """Return x in the form that `method` keeps."""
        return method.keep(x, state)


@dataclass(slots=True)
class WholeGradient(WeightGradient):
    """dW as one tensor of the weight's shape."""

    operation: Operation
    dw: Tensor

    def products(self, weight: Tensor) -> Tensor:
        """See WeightGradient."""
        return self.operation.row_products(self.dw, weight)

    def scale_(self, scale: Tensor) -> None:
        """See WeightGradient."""
        self.operation.scale_outputs_(self.dw, scale)

    def multiply_(self, factor: Tensor) -> None:
        """See WeightGradient."""
        self.dw.mul_(factor)

    def respond(self, mean: Tensor) -> Tensor:
        """See WeightGradient."""
        return self.operation.respond(self.dw, mean)

    def squared_norm(self) -> Tensor:
        """See WeightGradient."""
        return cast(Tensor, torch.linalg.vector_norm(self.dw)).square()

    def add_to_(self, target: Tensor, factor: float) -> None:
        """See WeightGradient."""
        target.add_(self.dw, alpha=factor)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """See WeightGradient."""
        yield slice(0, len(self.dw)), self.dw

    def whole(self) -> Tensor:
        """See WeightGradient."""
        return self.dw


def row_dots(left: Tensor, right: Tensor, *, at_once: bool = False) -> Tensor:
    """Return <left[i], right[i]> for each row i: (rows,). left and right have the same shape.

    Computed a few rows at a time, with little memory beside the gradient, or in few calls (at_once: all rows if they
    fit the cache, else an eighth at a time), with the same result to the bit.
    """
    if at_once and right.numel() <= PRODUCTS_IN_CACHE:
        return (left * right).flatten(1).sum(1)
    rows = max(1, max(AT_ONCE, right.numel() // SHARES[at_once]) // max(1, right[:1].numel()))
    if rows >= len(right):
        return (left * right).flatten(1).sum(1)
    dtype = torch.result_type(left, right)
    found = right.new_empty(len(right), dtype=dtype)
    room = right.new_empty(rows, *right.shape[1:], dtype=dtype)
    products = room.flatten(1)
    parts = (torch.split(one, rows) for one in (left, right, found))
    for one, other, sums in zip(*parts, strict=True):
        count = len(one)
        torch.mul(one, other, out=room if count == rows else room[:count])
        torch.sum(products if count == rows else products[:count], 1, out=sums)
    return found
