"""Clipping of each micro-batch's gradient by layer, where several micro-batches are computed side by side.

A device with small micro-batches clips them one after another. Side by side, a layer multiplies the incoming gradient
of each micro-batch by that micro-batch's share before it computes the gradients of its own parameters, which are linear
in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ADDED = 1e-6  # to every norm, as torch.nn.utils.clip_grad_norm_ does


@dataclass(frozen=True, slots=True)
class Clip:
    """Clips the gradient of each micro-batch.

    norm: the largest 2-norm of the gradient of a micro-batch's mean loss. images: of which the loss is the mean here.
    micro_batch: images in one.
    """

    norm: float
    images: int
    micro_batch: int

    def shares(self, squares: Tensor, images: int) -> Tensor:
        """Return by how much the gradient of each image is multiplied: (images,).

        squares: of the norm of each micro-batch's gradient, all parameters of the layer together: (micro-batches,).
        """
        sizes = torch.full_like(squares, self.micro_batch)
        sizes[-1] = images - self.micro_batch * (len(squares) - 1)
        norms = squares.sqrt() * self.images / sizes
        shares = (self.norm / (norms + ADDED)).clamp(max=1.0)
        return shares.repeat_interleave(self.micro_batch)[:images]

    def of_images(self, gradients: Tensor) -> Tensor:
        """Return the shares for gradients that are known image by image, (images, parameters): (images,)."""
        images = len(gradients)
        counts = -(-images // self.micro_batch)
        whole = gradients.new_zeros(counts * self.micro_batch, gradients.shape[1])
        whole[:images] = gradients
        squares = whole.view(counts, self.micro_batch, -1).sum(1).square().sum(1)
        return self.shares(squares, images)
