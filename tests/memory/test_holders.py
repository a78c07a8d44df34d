"""Tensors that modules of a user's own keep as attributes, found again when the attributes change."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fed_asi.memory.meter import ActivationMeter

KEPT = 3 * 5 * 4  # bytes of `last` after a forward


class Keeping(nn.Module):
    def __init__(self, first: object) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5)
        self.last = first

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.last = [y.detach() * 3]
        return y


class Renaming(Keeping):
    """Has as many attributes after its first forward as before, one of them under another name."""

    def __init__(self) -> None:
        super().__init__(None)
        del self.last
        self.first: object = [torch.zeros(7)]

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "first"):
            del self.first
        return super().forward(x)


def state_bytes(model: Keeping) -> tuple[int, int]:
    """Return the bytes that the modules keep, as one meter counts them before and after a forward."""
    meter = ActivationMeter(model)
    with meter, torch.no_grad():
        model.linear(torch.randn(3, 4))
    before = meter.state_bytes
    with meter:
        y = model(torch.randn(3, 4))
    assert y.requires_grad
    return before, meter.state_bytes


@pytest.mark.parametrize("first", [0, (1, 2), "nothing yet", None])
def test_a_tensor_in_place_of_a_number_counts(first: object) -> None:
    assert state_bytes(Keeping(first)) == (0, KEPT)


def test_a_tensor_under_another_name_counts() -> None:
    assert state_bytes(Renaming()) == (28, KEPT)
