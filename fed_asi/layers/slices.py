"""A part of a weight, that of some input channels, and the gradient of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_asi.layers.gradient import WeightGradient


@dataclass(frozen=True, slots=True)
class Slice:
    """Some places along one dimension of a tensor. index: (k,), int64, ascending."""

    dim: int
    index: Tensor

    def on(self, device: torch.device) -> Slice:
        """Return the same places for tensors on a device."""
        return self if self.index.device == device else Slice(self.dim, self.index.to(device))

    def of(self, whole: Tensor) -> Tensor:
        """Return the part of a tensor, as a copy."""
        return whole.index_select(self.dim, self.index)

    def rest(self, whole: Tensor) -> Slice:
        """Return the places of a tensor that are not of the part."""
        outside = torch.ones(whole.shape[self.dim], dtype=torch.bool, device=self.index.device)
        outside[self.index] = False
        return Slice(self.dim, outside.nonzero().flatten())

    def shape_of(self, whole: Tensor) -> torch.Size:
        """Return the shape of the part."""
        shape = list(whole.shape)
        shape[self.dim] = self.index.shape[0]
        return torch.Size(shape)

    def bytes_of(self, whole: Tensor) -> int:
        """Return the bytes of the part."""
        return whole.element_size() * self.shape_of(whole).numel()

    def add_(self, whole: Tensor, part: Tensor, factor: float) -> None:
        """Add factor * part to its place in a tensor."""
        whole.index_add_(self.dim, self.index, part, alpha=factor)

    def multiply_(self, whole: Tensor, factor: float) -> None:
        """Multiply the part of a tensor by factor, in its place."""
        whole.index_copy_(self.dim, self.index, self.of(whole).mul_(factor))

    def load_(self, whole: Tensor, part: Tensor) -> None:
        """Write a part into its place."""
        whole.index_copy_(self.dim, self.index, part)

    def same(self, other: Slice) -> bool:
        """Return whether the other is of the same places."""
        return self.dim == other.dim and torch.equal(self.index, other.index)


@dataclass(slots=True)
class PartGradient(WeightGradient):
    """dW of the channels kept; of the other channels there is none.

    inner: the gradient of the part; part: where in the weight that is. channels: (k,) of the input. weight: the whole
    one, for its shape.
    """

    inner: WeightGradient
    part: Slice
    channels: Tensor
    weight: Tensor
    joined: bool = False

    def products(self, weight: Tensor) -> Tensor:
        """See WeightGradient."""
        return self._outputs(self.inner.products(self.part.of(weight)))

    def scale_(self, scale: Tensor) -> None:
        """See WeightGradient."""
        self.inner.scale_(scale if self.part.dim else scale.index_select(0, self.part.index))

    def multiply_(self, factor: Tensor) -> None:
        """See WeightGradient."""
        self.inner.multiply_(factor)

    def respond(self, mean: Tensor) -> Tensor:
        """See WeightGradient. mean: of all channels, or of those kept."""
        part = mean if mean.shape == self.channels.shape else mean.index_select(0, self.channels)
        return self._outputs(self.inner.respond(part))

    def squared_norm(self) -> Tensor:
        """See WeightGradient."""
        return self.inner.squared_norm()

    def add_to_(self, target: Tensor, factor: float) -> None:
        """Add factor * dW to the whole weight, or to a tensor of the part's shape."""
        if target.shape == self.part.shape_of(self.weight):
            self.inner.add_to_(target, factor)
            return
        if self.joined:
            self.part.add_(target, self.inner.whole(), factor)
            return
        for rows, dw in self.inner.blocks():
            if self.part.dim:
                target[rows].index_add_(1, self.part.index, dw, alpha=factor)
            else:
                target.index_add_(0, self.part.index[rows], dw, alpha=factor)

    def join_(self) -> None:
        """Let the gradient of the part be whole when it is added, not in blocks: fewer calls and more memory."""
        self.joined = True

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """See WeightGradient."""
        yield slice(0, len(self.weight)), self.whole()

    def whole(self) -> Tensor:
        """Return dW in the weight's shape, zero for the channels that are not kept."""
        found = torch.zeros_like(self.weight)
        self.part.add_(found, self.inner.whole(), 1.0)
        return found

    def _outputs(self, values: Tensor) -> Tensor:
        """Return values by output: (C',), zero where no output belongs to a channel kept."""
        if self.part.dim:
            return values
        return values.new_zeros(len(self.weight)).index_copy_(0, self.part.index, values)
