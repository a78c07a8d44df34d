"""A weight gradient as the product of two thin matrices, which goes into a weight without ever being whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_asi.layers import tucker_gradient
from fed_asi.layers.gradient import WeightGradient

GRAM = 32  # up to this inner size ||dW|| comes from two small Gram matrices, else from blocks of dW
BLOCK = tucker_gradient.COPIED_OUTPUTS  # outputs multiplied out at a time


@dataclass(slots=True)
class ThinGradient(WeightGradient):
    """dW = left @ right, its inputs last, of a weight (C', C, *K).

    left: (C' K, r). right: (r, C). own: nobody else reads left, so it may be scaled in place.
    """

    left: Tensor
    right: Tensor
    weight: Tensor
    own: bool = True

    def products(self, weight: Tensor) -> Tensor:
        """See WeightGradient."""
        if weight.shape[2:].numel() == 1:
            return (weight.flatten(1) @ self.right.mT).mul_(self.left).sum(1)
        sizes = _blocks(len(weight))
        every = zip(torch.split(weight, sizes), torch.split(self._rows(), sizes), strict=True)
        found = [_products(part, left.flatten(0, 1), self.right) for part, left in every]
        return found[0] if len(found) == 1 else torch.cat(found)

    def scale_(self, scale: Tensor) -> None:
        """See WeightGradient."""
        rows = self._rows()
        if self.own:
            rows.mul_(scale.view(-1, 1, 1))
        else:
            self.left, self.own = (rows * scale.view(-1, 1, 1)).flatten(0, 1), True

    def respond(self, mean: Tensor) -> Tensor:
        """See WeightGradient."""
        return (self._rows() @ (self.right @ mean)).sum(1)

    def squared_norm(self) -> Tensor:
        """See WeightGradient."""
        if self.right.shape[0] <= GRAM:
            return ((self.left.mT @ self.left) * (self.right @ self.right.mT)).sum().clamp_min(0.0)
        return torch.stack([dw.square().sum() for _, dw in self.blocks()]).sum()

    def add_to_(self, target: Tensor, factor: float) -> None:
        """See WeightGradient."""
        if self.weight.shape[2:].numel() == 1 and target.is_contiguous():
            target.view(target.shape[:2]).addmm_(self.left, self.right, alpha=factor)
            return
        for rows, dw in self.blocks():
            target[rows].add_(dw, alpha=factor)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """See WeightGradient."""
        _, inputs, *kernel = self.weight.shape
        start = 0
        for left in torch.split(self._rows(), _blocks(self.weight.shape[0])):
            dw = (left.flatten(0, 1) @ self.right).view(len(left), *kernel, inputs).movedim(-1, 1)
            yield slice(start, start + len(left)), dw
            start += len(left)

    def whole(self) -> Tensor:
        """See WeightGradient."""
        return tucker_gradient.whole(self.left, self.right, self.weight)

    def _rows(self) -> Tensor:
        """Return left as (C', K, r), a view."""
        return self.left.view(self.weight.shape[0], -1, self.left.shape[1])


def of_pixels(x: Tensor, g: Tensor, weight: Tensor, stride: Sequence[int], *, own: bool) -> ThinGradient:
    """Return dW of a layer that is one matrix for every pixel: g's rows times those of x.

    x: (N, C, *S). g: (N, C', *S'), whose strides skip pixels of x. own: nobody else reads g.
    """
    for dim, step in enumerate(stride, 2):
        x = x if step == 1 else x[(slice(None),) * dim + (slice(None, None, step),)]
    return ThinGradient(_by_pixel(g).mT, _by_pixel(x.to(g.dtype)), weight, own)


def _by_pixel(x: Tensor) -> Tensor:
    """Return x: (N, C, *S) as (N S, C), a view where its memory allows one."""
    if len(x) == 1:
        return x.view(x.shape[1], -1).mT if x.is_contiguous() else x[0].reshape(x.shape[1], -1).mT
    return x.movedim(1, -1).flatten(0, -2)


def _blocks(outputs: int) -> list[int]:
    """Return how many outputs go at a time: BLOCK, the last ones with the rest.

    Of a block much smaller than the others BLAS may add in another order, and then dW x W has other bits.
    """
    full = max(1, outputs // BLOCK)
    return [BLOCK] * (full - 1) + [outputs - BLOCK * (full - 1)]


def _products(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return <left @ right, weight> for each output channel, of one block of outputs."""
    last = weight.movedim(1, -1).reshape(left.shape[0], -1)
    return (last @ right.mT).mul_(left).view(len(weight), -1).sum(1)
