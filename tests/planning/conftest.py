"""Shared by the tests of calibration and planning: a tiny network, a batch for it, and its profile."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fed_asi import models
from fed_asi.planning.calibration import profile
from fed_asi.planning.profile import Profile


@pytest.fixture(scope="session")
def model() -> nn.Module:
    return models.build("tiny", 10, None, 16)


@pytest.fixture(scope="session")
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(8, 3, 16, 16, generator=generator), torch.randint(0, 10, (8,), generator=generator)


@pytest.fixture(scope="session")
def made(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Profile:
    return profile(model, *batch, micro_batches=(1, 4, 8), density=4, centered=None, grid=True)
