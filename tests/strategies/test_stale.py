"""A stale update moves the current weights in its own direction, by its share of its move, place by place."""

from __future__ import annotations

import pytest
import torch

from fed_asi.layers.slices import Slice
from fed_asi.strategies import Round, Update
from fed_asi.strategies.fedavg import FedAvg
from fed_asi.strategies.stale import brought_up, damping

BEGAN = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "b": torch.tensor([1.0])}
NOW = {"w": torch.tensor([[10.0, 20.0], [30.0, 40.0]]), "b": torch.tensor([-1.0])}


def test_what_is_stale_is_damped_as_fedbuff_has_it() -> None:
    assert damping(0, 0.5) == 1.0
    assert damping(3, 0.5) == 0.5
    assert damping(7, 0.0) == 1.0
    assert damping(1, 2.0) == 0.25


def test_a_share_of_the_move_is_added_to_the_weights_of_now() -> None:
    update = Update(3, 5, {"w": BEGAN["w"] + 4.0}, {"w": 0.5}, 7)
    found = brought_up(update, BEGAN, NOW, 0.25)
    assert torch.equal(found.tensors["w"], NOW["w"] + 1.0)
    assert found.tensors["w"].dtype == torch.float32
    assert (found.partition_id, found.num_examples, found.factors, found.steps) == (3, 5, {"w": 0.5}, 7)


def test_a_part_of_a_tensor_stays_a_part() -> None:
    part = Slice(1, torch.tensor([1]))
    update = Update(0, 5, {"w": torch.tensor([[4.0], [8.0]])}, slices={"w": part})
    found = brought_up(update, BEGAN, NOW, 0.5)
    assert torch.equal(found.tensors["w"], torch.tensor([[21.0], [42.0]]))
    assert found.slices == {"w": part}


def test_the_mean_of_stale_updates_moves_the_weights_by_the_mean_of_their_moves() -> None:
    stale = brought_up(Update(0, 1, {"b": torch.tensor([2.0])}), BEGAN, NOW, 0.5)
    fresh = Update(1, 3, {"b": NOW["b"] + 2.0})
    found = FedAvg().combine(Round.of(1, NOW, [fresh, stale], 2, 0.0), {})
    assert float(found.tensors["b"]) == pytest.approx(-1.0 + (0.5 * 1.0 + 3 * 2.0) / 4)


def test_what_is_beyond_the_type_becomes_its_largest_number() -> None:
    most = torch.finfo(torch.float32).max
    update = Update(0, 1, {"b": torch.tensor([most])})
    found = brought_up(update, {"b": torch.tensor([-most])}, {"b": torch.tensor([most])}, 1.0)
    assert float(found.tensors["b"]) == most
