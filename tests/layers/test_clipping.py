"""Shares by which the gradients of micro-batches side by side are multiplied, against torch's own clipping."""

from __future__ import annotations

import pytest
import torch

from fed_asi.layers.clipping import Clip


@pytest.mark.parametrize(("images", "micro_batch"), [(6, 2), (7, 3), (1, 1), (3, 8)])
@pytest.mark.parametrize("norm", [0.5, 2.0, 1e6])
def test_each_micro_batch_is_clipped_as_torch_clips_it(images: int, micro_batch: int, norm: float) -> None:
    gradients = torch.randn(images, 5, generator=torch.Generator().manual_seed(0)).double()
    shares = Clip(norm, images, micro_batch).of_images(gradients / images)  # of the mean loss of all images
    for start in range(0, images, micro_batch):
        rows = slice(start, start + micro_batch)
        own = torch.nn.Parameter(torch.zeros(5).double())
        own.grad = gradients[rows].mean(0)  # of its own mean loss
        torch.nn.utils.clip_grad_norm_([own], norm)
        torch.testing.assert_close(
            (gradients[rows] * shares[rows, None]).mean(0), own.grad, rtol=1e-12, atol=0.0
        )


def test_no_gradient_is_left_as_it_is() -> None:
    assert torch.equal(Clip(1.0, 4, 2).shares(torch.zeros(2), 4), torch.ones(4))


def test_squares_give_the_shares_that_the_gradients_give() -> None:
    gradients = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).double()
    clip = Clip(0.3, 10, 2)
    squares = torch.stack([gradients[start : start + 2].sum(0).square().sum() for start in (0, 2, 4)])
    torch.testing.assert_close(clip.shares(squares, 5), clip.of_images(gradients))
