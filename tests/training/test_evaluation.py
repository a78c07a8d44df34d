"""Evaluation: by hand, with the same bits as batches one by one, and with weights loaded in place."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fed_asi import models
from fed_asi.training.evaluation import BATCH, evaluate, load_tensors_


class Fixed(nn.Module):
    """Answers with the inputs: whoever makes them decides what is right."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_loss_and_accuracies_by_hand() -> None:
    y = torch.tensor([0, 0, 0, 0, 1, 1, 3])
    said = torch.tensor([0, 0, 0, 1, 1, 0, 3])
    logits = 4.0 * nn.functional.one_hot(said, 4)
    found = evaluate(Fixed(), logits, y, 4)
    assert (found.num_examples, found.accuracy) == (7, 5 / 7)
    assert found.class_accuracy[:2] == (0.75, 0.5)
    assert math.isnan(found.class_accuracy[2])
    assert found.class_accuracy[3] == 1.0
    assert found.worst_class_accuracy == 0.5
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits, y).item())


def test_a_last_smaller_batch_weighs_what_it_holds() -> None:
    y = torch.zeros(BATCH + 1, dtype=torch.long)
    logits = torch.zeros(BATCH + 1, 2)
    logits[:BATCH, 0] = 9.0
    logits[BATCH, 1] = 9.0
    found = evaluate(Fixed(), logits.half(), y, 2)
    assert found.accuracy == BATCH / (BATCH + 1)
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits, y).item())


def test_a_model_is_judged_in_eval_mode_and_left_unchanged() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(), nn.Linear(12, 3)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, y = torch.randn(5, 3, 2, 2), torch.arange(5) % 3
    assert evaluate(model, x, y, 3) == evaluate(model, x, y, 3)
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_batches_at_once_give_the_same_bits() -> None:
    model = models.build("tiny", 10, seed=1)
    x = torch.randn(3 * BATCH + 5, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    y = torch.arange(len(x)) % 10
    torch.set_num_threads(1)
    alone = evaluate(model, x, y, 10)
    assert alone.num_examples == len(x)
    assert evaluate(model, x, y, 10, workers=4) == alone


def test_weights_are_loaded_in_place() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    weight = model[0].weight
    load_tensors_(model, {"0.weight": torch.ones(2, 2), "1.running_mean": torch.tensor([3.0, 4.0])})
    assert model[0].weight is weight
    assert torch.equal(weight, torch.ones(2, 2))
    assert model[1].running_mean.tolist() == [3.0, 4.0]
    with pytest.raises(KeyError, match=r"2\.weight"):
        load_tensors_(model, {"2.weight": torch.ones(1)})
