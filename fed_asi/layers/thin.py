"""A weight gradient as a product of two thin matrices, applied to a weight without ever being multiplied out whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from fed_asi.layers import tucker_gradient
from fed_asi.layers.gradient import WeightGradient

GRAM = 32  # up to this inner size, ||dW|| is computed from two small Gram matrices; beyond, from blocks of dW
BLOCK = tucker_gradient.COPIED_OUTPUTS  # output channels multiplied out at one time


@dataclass(slots=True)
class ThinGradient(WeightGradient):
    """dW as the sum of m products left @ right, input channels last, for a weight (C', C, *K).

    left: (m, C' K, r). right: (m, r, C). own: nothing else reads left, so it may be scaled in place.
    """

    left: Tensor
    right: Tensor
    weight: Tensor
    own: bool = True

    def products(self, weight: Tensor) -> Tensor:
        """See WeightGradient."""
        if weight.shape[2:].numel() == 1:
            return _sum(_products(weight.flatten(1), *pair).sum(1) for pair in self._pairs())
        sizes = _blocks(len(weight))
        every = zip(torch.split(weight, sizes), torch.split(self._rows(), sizes, 1), strict=True)
        found = [self._products_of(part, left) for part, left in every]
        return found[0] if len(found) == 1 else torch.cat(found)

    def scale_(self, scale: Tensor) -> None:
        """See WeightGradient."""
        self._scale_(scale.view(-1, 1, 1))

    def multiply_(self, factor: Tensor) -> None:
        """See WeightGradient."""
        self._scale_(factor)

    def respond(self, mean: Tensor) -> Tensor:
        """See WeightGradient."""
        if len(self.right) == 1 and self.weight.shape[2:].numel() == 1:
            return self.left[0] @ (self.right[0] @ mean)
        every = zip(self._rows(), self.right, strict=True)
        return _sum((rows @ (right @ mean)).sum(1) for rows, right in every)

    def squared_norm(self) -> Tensor:
        """See WeightGradient."""
        if len(self.right) == 1 and self.right.shape[1] <= GRAM:
            ((left, right),) = self._pairs()
            return ((left.mT @ left) * (right @ right.mT)).sum().clamp_min(0.0)
        return _sum(dw.square().sum() for _, dw in self.blocks())

    def add_to_(self, target: Tensor, factor: float) -> None:
        """See WeightGradient."""
        if self.weight.shape[2:].numel() == 1 and target.is_contiguous():
            for left, right in self._pairs():
                target.view(target.shape[:2]).addmm_(left, right, alpha=factor)
            return
        for rows, dw in self.blocks():
            target[rows].add_(dw, alpha=factor)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """See WeightGradient."""
        _, inputs, *kernel = self.weight.shape
        start = 0
        for lefts in torch.split(self._rows(), _blocks(self.weight.shape[0]), 1):
            dw = lefts[0].flatten(0, 1) @ self.right[0]
            for left, right in zip(lefts[1:], self.right[1:], strict=True):
                dw.addmm_(left.flatten(0, 1), right)
            outputs = lefts.shape[1]
            yield slice(start, start + outputs), dw.view(outputs, *kernel, inputs).movedim(-1, 1)
            start += outputs

    def whole(self) -> Tensor:
        """See WeightGradient."""
        if len(self.right) == 1:
            return tucker_gradient.whole(self.left[0], self.right[0], self.weight)
        return torch.cat([dw for _, dw in self.blocks()])

    def _products_of(self, weight: Tensor, lefts: Tensor) -> Tensor:
        """Return <dW, W> for a block of output channels: weight (c, C, *K), lefts (m, c, K, r)."""
        last = weight.movedim(1, -1).flatten(0, -2)
        every = zip(lefts, self.right, strict=True)
        found = (_products(last, left.flatten(0, 1), right) for left, right in every)
        return _sum(one.view(len(weight), -1).sum(1) for one in found)

    def _scale_(self, by: Tensor) -> None:
        """Multiply the rows of dW by a factor that broadcasts to (C', K, r), in place if nothing else reads them."""
        rows = self._rows()
        if self.own:
            rows.mul_(by)
        else:
            self.left, self.own = (rows * by).flatten(1, 2), True

    def _rows(self) -> Tensor:
        """Return left as (m, C', K, r), a view."""
        return self.left.view(len(self.left), self.weight.shape[0], -1, self.left.shape[2])

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.left, self.right, strict=True)


def of_tucker(left: Tensor, right: Tensor, weight: Tensor) -> ThinGradient:
    """Return dW from the result of `tucker_gradient.thin`: (C' K, r) and (r, C)."""
    return ThinGradient(left.unsqueeze(0), right.unsqueeze(0), weight)


def of_pixels(x: Tensor, g: Tensor, weight: Tensor, stride: Sequence[int], *, own: bool) -> ThinGradient:
    """Return dW of a layer that applies one matrix to every pixel: the rows of g times those of x.

    x: (N, C, *S). g: (N, C', *S'), whose strides skip pixels of x. own: nothing else reads g. If both are channels
    last, this is one product over the pixels of all images, else one product per image; neither tensor is copied.
    """
    for dim, step in enumerate(stride, 2):
        x = x if step == 1 else x[(slice(None),) * dim + (slice(None, None, step),)]
    x = x.to(g.dtype)
    if x.dim() == 2 or (_last(x) and _last(g)):
        left, right = (one.movedim(1, -1).flatten(0, -2).unsqueeze(0) for one in (g, x))
    else:
        left, right = (one.flatten(2).mT for one in (g, x))
    return ThinGradient(left.mT, right, weight, own)


def _last(x: Tensor) -> bool:
    """Return whether x: (N, C, *S) is channels last in memory."""
    return x.movedim(1, -1).is_contiguous()


def _sum(found: Iterable[Tensor]) -> Tensor:
    return reduce(Tensor.add_, found)


def _blocks(outputs: int) -> list[int]:
    """Return how many output channels each block has: BLOCK, and the last one the remainder too.

    BLAS may add up a block much smaller than the others in another order, which would change the last bits.
    """
    full = max(1, outputs // BLOCK)
    return [BLOCK] * (full - 1) + [outputs - BLOCK * (full - 1)]


def _products(weight: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return left * (weight @ right^T): (C' K, r), whose sums are <left @ right, weight>; weight: (C' K, C)."""
    return (weight @ right.mT).mul_(left)
