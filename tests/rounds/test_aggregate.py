from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_asi.errors import UpdateError
from fed_asi.rounds.aggregate import Update, average, check_update

REFERENCE = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}


def test_hand_derived_average_per_tensor() -> None:
    updates = [
        Update(0, 1, {"a": torch.tensor([1.0, 0.0])}),
        Update(1, 3, {"a": torch.tensor([5.0, 4.0]), "b": torch.tensor([[7.0]])}),
    ]
    result = average(updates, REFERENCE)
    assert torch.equal(result["a"], torch.tensor([4.0, 3.0]))
    assert torch.equal(result["b"], torch.tensor([[7.0]]))  # device 0 did not train it and has no say


def test_untrained_tensor_stays() -> None:
    result = average([Update(0, 5, {"a": torch.tensor([0.0, 0.0])})], REFERENCE)
    assert torch.equal(result["b"], REFERENCE["b"])
    assert result["b"] is not REFERENCE["b"]
    assert torch.equal(average([], REFERENCE)["a"], REFERENCE["a"])


def test_factors_weigh_and_zero_leaves_out() -> None:
    one = Update(0, 2, {"a": torch.tensor([0.0, 0.0])}, factors={"a": 0.5})
    two = Update(1, 1, {"a": torch.tensor([4.0, 4.0])})
    assert torch.equal(average([one, two], REFERENCE)["a"], torch.tensor([2.0, 2.0]))
    silent = Update(2, 9, {"a": torch.tensor([9.0, 9.0])}, factors={"a": 0.0})
    assert torch.equal(average([one, two, silent], REFERENCE)["a"], torch.tensor([2.0, 2.0]))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_order_of_arrival_changes_no_bit(count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    updates = [
        Update(
            k,
            1 + k * 7,
            {"a": torch.randn(2, generator=generator), "b": torch.randn(1, 1, generator=generator)},
        )
        for k in range(count)
    ]
    shuffled = list(updates)
    random.Random(seed).shuffle(shuffled)
    first, second = average(updates, REFERENCE), average(shuffled, REFERENCE)
    assert all(torch.equal(first[name], second[name]) for name in REFERENCE)


def test_sum_runs_in_float64() -> None:
    big, small = torch.tensor([1e8, 0.0]), torch.tensor([1.0, 0.0])
    updates = [Update(k, 1, {"a": small if k else big}) for k in range(101)]
    expected = torch.tensor([(1e8 + 100.0) / 101.0], dtype=torch.float64).float()
    assert average(updates, REFERENCE)["a"][0] == expected[0]


def test_same_device_twice_is_an_error() -> None:
    update = Update(3, 1, {"a": torch.zeros(2)})
    with pytest.raises(UpdateError, match="two updates"):
        average([update, update], REFERENCE)


@pytest.mark.parametrize(
    ("update", "cause"),
    [
        (Update(0, 1, {"a": torch.tensor([1.0, float("nan")])}), "a holds NaN"),
        (Update(0, 1, {"a": torch.tensor([1.0, float("inf")])}), "a holds Inf"),
        (Update(0, 1, {"a": torch.zeros(3)}), r"a has shape \(3,\), not \(2,\)"),
        (Update(0, 1, {"a": torch.zeros(2, dtype=torch.float64)}), "a is torch.float64"),
        (Update(0, 1, {}), "missing tensor a"),
        (Update(0, 1, {"a": torch.zeros(2), "b": torch.zeros(1, 1)}), "surplus tensor b"),
        (Update(0, 1, {"a": torch.zeros(2), "z": torch.zeros(1)}), "surplus tensor z"),
        (Update(0, 0, {"a": torch.zeros(2)}), "0 examples"),
        (Update(0, 1, {"a": torch.zeros(2)}, factors={"a": float("nan")}), "weight nan"),
    ],
)
def test_bad_updates_are_named(update: Update, cause: str) -> None:
    with pytest.raises(UpdateError, match=cause):
        check_update(update, REFERENCE, {"a"})


def test_good_update_passes() -> None:
    check_update(Update(0, 4, {"a": torch.zeros(2)}), REFERENCE, {"a"})
