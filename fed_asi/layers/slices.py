"""A slice of a weight that belongs to some input channels, and its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_asi.layers.gradient import WeightGradient

AT_ONCE = 1 << 12  # elements of a slice copied at one time


@dataclass(frozen=True, slots=True)
class Slice:
    """Some indices along one dimension of a tensor. index: (k,), int64, ascending."""

    dim: int
    index: Tensor

    def on(self, device: torch.device) -> Slice:
        """Return the same slice with its index on a device."""
        return self if self.index.device == device else Slice(self.dim, self.index.to(device))

    def of(self, whole: Tensor) -> Tensor:
        """Return the slice of a tensor, as a copy."""
        return whole.index_select(self.dim, self.index)

    def rest(self, whole: Tensor) -> Slice:
        """Return the slice of all other indices."""
        outside = torch.ones(whole.shape[self.dim], dtype=torch.bool, device=self.index.device)
        outside[self.index] = False
        return Slice(self.dim, outside.nonzero().flatten())

    def shape_of(self, whole: Tensor) -> torch.Size:
        """Return the shape of the slice of a tensor."""
        shape = list(whole.shape)
        shape[self.dim] = self.index.shape[0]
        return torch.Size(shape)

    def bytes_of(self, whole: Tensor) -> int:
        """Return the bytes of the slice of a tensor."""
        return whole.element_size() * self.shape_of(whole).numel()

    def add_(self, whole: Tensor, part: Tensor, factor: float) -> None:
        """Add factor * part to the slice of a tensor, in place."""
        whole.index_add_(self.dim, self.index, part, alpha=factor)

    def add_to_(self, part: Tensor, whole: Tensor, factor: float) -> None:
        """Add factor * the slice of a tensor to `part`, in place, a few rows at a time: no copy of the slice."""
        rows = max(1, AT_ONCE // max(1, part[:1].numel()))
        for start in range(0, len(part), rows):
            some = slice(start, start + rows)
            if self.dim:
                found = whole[some].index_select(self.dim, self.index)
            else:
                found = whole.index_select(0, self.index[some])
            part[some].add_(found, alpha=factor)

    def multiply_(self, whole: Tensor, factor: float) -> None:
        """Multiply the slice of a tensor by factor, in place."""
        whole.index_copy_(self.dim, self.index, self.of(whole).mul_(factor))

    def load_(self, whole: Tensor, part: Tensor) -> None:
        """Write `part` into the slice of a tensor."""
        whole.index_copy_(self.dim, self.index, part)

    def same(self, other: Slice) -> bool:
        """Return whether both slices have the same indices."""
        return self.dim == other.dim and torch.equal(self.index, other.index)


@dataclass(slots=True)
class PartGradient(WeightGradient):
    """dW of the kept channels; the other channels have no gradient.

    inner: the gradient of the slice. part: the slice of the weight. channels: (k,), the kept input channels.
    weight: the whole weight, for its shape.
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
        """See WeightGradient. mean: of all channels, or of the kept ones."""
        part = mean if mean.shape == self.channels.shape else mean.index_select(0, self.channels)
        return self._outputs(self.inner.respond(part))

    def squared_norm(self) -> Tensor:
        """See WeightGradient."""
        return self.inner.squared_norm()

    def add_to_(self, target: Tensor, factor: float) -> None:
        """Add factor * dW to a tensor in the shape of the weight, or in the shape of the slice."""
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
        """Compute the gradient of the slice whole when it is added, not in blocks: fewer calls, more memory."""
        self.joined = True

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """See WeightGradient."""
        yield slice(0, len(self.weight)), self.whole()

    def whole(self) -> Tensor:
        """Return dW in the shape of the weight, zero for channels that are not kept."""
        found = torch.zeros_like(self.weight)
        self.part.add_(found, self.inner.whole(), 1.0)
        return found

    def _outputs(self, values: Tensor) -> Tensor:
        """Return values per output channel: (C',), zero where an output belongs to no kept channel."""
        if self.part.dim:
            return values
        return values.new_zeros(len(self.weight)).index_copy_(0, self.part.index, values)
