from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections.abc import Iterable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_asi.errors import UpdateError
from fed_asi.layers.slices import Slice
from fed_asi.strategies.aggregate import Update, check_update
from fed_asi.strategies.base import Round

REFERENCE = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0]])}


def average(updates: Iterable[Update], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return Round.of(1, reference, list(updates), 99, 0.0).means()


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


WHOLE = {"w": torch.arange(24.0).reshape(4, 3, 2) - 7.0, "v": torch.ones(2, 2)}


@st.composite
def parts(draw: st.DrawFn) -> list[Update]:
    """Updates of whole tensors, and of parts of them along either dimension; some do not train a tensor at all."""
    updates = []
    for k in range(draw(st.integers(1, 5))):
        tensors, slices, factors = {}, {}, {}
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        for name, whole in WHOLE.items():
            how = draw(st.sampled_from(["not", "whole", "part", "part"]))
            if how == "not":
                continue
            tensors[name] = torch.randn(whole.shape, generator=generator)
            factors[name] = draw(st.sampled_from([0.0, 0.3, 1.0]))
            if how == "part":
                dim = draw(st.integers(0, 1))
                index = draw(st.sets(st.integers(0, whole.shape[dim] - 1), min_size=1))
                slices[name] = Slice(dim, torch.tensor(sorted(index)))
                tensors[name] = slices[name].of(tensors[name])
        updates.append(Update(k, draw(st.integers(1, 9)), tensors, factors, slices=slices))
    return updates


def by_hand(updates: list[Update], name: str) -> torch.Tensor:
    """Number by number in plain Python."""
    whole = WHOLE[name]
    found = whole.clone()
    for place in itertools.product(*map(range, whole.shape)):
        total = weight = 0.0
        for update in updates:
            if name not in update.tensors:
                continue
            own = list(place)
            if (part := update.slices.get(name)) is not None:
                index = part.index.tolist()
                if own[part.dim] not in index:
                    continue
                own[part.dim] = index.index(own[part.dim])
            share = update.num_examples * update.factors[name]
            total += float(update.tensors[name][tuple(own)]) * share
            weight += share
        if weight:
            found[place] = total / weight
    return found


@settings(max_examples=80, deadline=None)
@given(parts(), st.randoms(use_true_random=False))
def test_parts_are_averaged_place_by_place(updates: list[Update], order: random.Random) -> None:
    for update in updates:
        check_update(update, WHOLE, list(update.tensors))
    found = average(updates, WHOLE)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, by_hand(updates, name), rtol=1e-6, atol=1e-7)
    shuffled = list(updates)
    order.shuffle(shuffled)
    assert all(torch.equal(found[name], one) for name, one in average(shuffled, WHOLE).items())


def test_a_part_of_everything_is_the_whole_to_the_bit() -> None:
    generator = torch.Generator().manual_seed(3)
    tensors = [torch.randn(4, 3, 2, generator=generator) for _ in range(3)]
    everything = {"w": Slice(1, torch.arange(3))}
    whole = [Update(k, 3 + k, {"w": tensor}) for k, tensor in enumerate(tensors)]
    part = [Update(k, 3 + k, {"w": tensor}, slices=everything) for k, tensor in enumerate(tensors)]
    assert torch.equal(average(whole, WHOLE)["w"], average(part, WHOLE)["w"])


@pytest.mark.parametrize(
    ("part", "why"),
    [
        (Slice(1, torch.tensor([0, 3])), "not ascending, each once, from 0 to 2"),
        (Slice(1, torch.tensor([1, 1])), "not ascending"),
        (Slice(1, torch.tensor([2, 0])), "not ascending"),
        (Slice(1, torch.tensor([-1, 0])), "not ascending"),
        (Slice(1, torch.tensor([], dtype=torch.long)), "not ascending"),
        (Slice(3, torch.tensor([0, 1])), "along dimension 3, and it has 3"),
        (Slice(0, torch.tensor([0, 1])), "has shape"),
    ],
    ids=str,
)
def test_parts_that_cannot_be_averaged_are_refused(part: Slice, why: str) -> None:
    with pytest.raises(UpdateError, match=why):
        check_update(Update(0, 1, {"w": torch.zeros(4, 2, 2)}, slices={"w": part}), WHOLE, ["w"])


def test_a_part_without_its_tensor_is_refused() -> None:
    update = Update(0, 1, {"w": WHOLE["w"]}, slices={"v": Slice(0, torch.tensor([0]))})
    with pytest.raises(UpdateError, match="a part of v without its tensor"):
        check_update(update, WHOLE, ["w"])


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
        (Update(0, -(10**5000), {"a": torch.zeros(2)}), "update of -1 examples"),
        (Update(0, 10**5000, {"a": torch.zeros(2)}), "update of 9223372036854775808 examples"),
        (Update(0, 1, {"a": torch.zeros(2)}, factors={"a": float("nan")}), "weight nan"),
        (Update(0, 1, {"a": torch.zeros(2)}, factors={"a": float("inf")}), "weight inf"),
        (Update(0, 1, {"a": torch.zeros(2)}, factors={"a": -0.5}), "weight -0.5"),
        (Update(0, 1, {"a": torch.zeros(2)}, factors={"a": 1e7}), "not a number from 0 to 1e"),
        (Update(0, 1, {"a": torch.zeros(2, dtype=torch.complex64)}), "a is torch.complex64"),
        (Update(0, 1, {"a": torch.zeros(2, dtype=torch.bool)}), "a is torch.bool"),
        (Update(0, 1, {"a": torch.zeros(2, dtype=torch.uint16)}), "a is torch.uint16"),
        (Update(0, 1, {"a": torch.tensor(1.0)}), r"a has shape \(\), not"),
        (Update(0, 1, {"a": torch.zeros(0, 2**40)}), "a has shape"),
        (Update(0, 1, {"a": torch.zeros(2).to_sparse()}), "a is not a plain tensor on cpu"),
        (Update(0, 1, {"a": torch.zeros(2, device="meta")}), "a is not a plain tensor on cpu"),
    ],
)
def test_bad_updates_are_named(update: Update, cause: str) -> None:
    with pytest.raises(UpdateError, match=cause):
        check_update(update, REFERENCE, {"a"})


def test_good_update_passes() -> None:
    check_update(Update(0, 4, {"a": torch.zeros(2)}), REFERENCE, {"a"})


NUMBERS = st.one_of(
    st.integers(-3, 3), st.integers(), st.sampled_from([2**63 - 1, 2**63, 10**400]), st.integers(1, 100)
)
FACTORS = st.one_of(st.floats(), st.floats(0.0, 1.0), st.sampled_from([0.0, 5e-324, 1e6]))
HUGE = [0.0, 1.0, -1.0, 3.4e38, -3.4e38, 1e-45, 1e100, -1e100, 1e101, 1.7e308, float("nan"), float("inf")]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
    st.lists(st.tuples(NUMBERS, FACTORS, st.sampled_from(HUGE)), max_size=5),
)
def test_what_passes_the_check_has_an_average(
    dtype: torch.dtype, sent: list[tuple[int, float, float]]
) -> None:
    reference = {"a": torch.zeros(2, dtype=dtype)}
    kept, values = list[Update](), list[float]()
    for k, (examples, factor, value) in enumerate(sent):
        tensor = torch.full((2,), value, dtype=torch.float64).to(dtype)
        update = Update(k, examples, {"a": tensor}, {"a": factor})
        with contextlib.suppress(UpdateError):
            check_update(update, reference, {"a"})
            kept.append(update)
            values.append(float(tensor[0]))
    found = float(average(kept, reference)["a"][0])
    assert math.isfinite(found)
    largest = max(map(abs, values), default=0.0)
    assert abs(found) <= largest * (1 + 1e-2) + 1e-30  # half a unit in the last place of float16


def test_numbers_whose_sum_overflows_are_finite_themselves() -> None:
    huge = torch.full((8,), 3e38)
    check_update(Update(0, 1, {"a": huge}), {"a": huge}, {"a"})
    huge[3], huge[5] = float("inf"), -float("inf")
    with pytest.raises(UpdateError, match="a holds Inf"):
        check_update(Update(0, 1, {"a": huge}), {"a": torch.zeros(8)}, {"a"})
