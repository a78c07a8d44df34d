"""Judging: batches computed at once give the bits of batches one by one."""

from __future__ import annotations

import torch

from fed_asi import models
from fed_asi.training.evaluation import BATCH, evaluate


def test_batches_at_once_give_the_same_bits() -> None:
    model = models.build("tiny", 10, seed=1)
    x = torch.randn(3 * BATCH + 5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    y = torch.arange(len(x)) % 10
    torch.set_num_threads(1)
    alone = evaluate(model, x, y, 10)
    assert alone.num_examples == len(x)
    assert evaluate(model, x, y, 10, workers=4) == alone
