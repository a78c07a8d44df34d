"""Updates of parts of a tensor: to every strategy, its channels are like separate tensors."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_asi.errors import UpdateError
from fed_asi.strategies import Round, Strategy, Update, check_update
from fed_asi.strategies.fedadagrad import FedAdagrad
from fed_asi.strategies.fedadam import FedAdam
from fed_asi.strategies.fedavg import FedAvg
from fed_asi.strategies.fedavgm import FedAvgM
from fed_asi.strategies.fednova import FedNova
from fed_asi.strategies.fedyogi import FedYogi
from fed_asi.strategies.krum import Krum
from fed_asi.strategies.median import Median
from fed_asi.strategies.norm_bound import NormBound
from fed_asi.strategies.places import by_cell, places_of
from fed_asi.strategies.scaffold import Scaffold
from fed_asi.strategies.trimmed_mean import TrimmedMean
from rounds_drawn import DEVICES

STRATEGIES = [
    FedAvg(), FedAvgM(), FedAdagrad(), FedAdam(bias_correction=True), FedAdam(initial_v=1e-4), FedYogi(), FedNova(),
    Median(), TrimmedMean(0.34), NormBound(max_norm=0.5), Krum(hostile=0), Krum(hostile=1, keep=3),
    Scaffold(server_lr=0.5),
]  # fmt: skip


@dataclass(frozen=True)
class Channels:
    """Some places along a dimension."""

    dim: int
    index: Tensor


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Update], list[Update], int]:
    """One round's updates of w: (3, 4, 2) by parts of a dimension, and the same with each channel a tensor."""
    dim = draw(st.integers(0, 1))
    width = (3, 4)[dim]
    parts, alone = [], []
    for k in draw(st.lists(st.integers(0, DEVICES - 1), min_size=1, max_size=5, unique=True)):
        places = draw(st.lists(st.integers(0, width - 1), min_size=1, unique=True).map(sorted))
        new, variate = drawn(k, 3, 4, 2), drawn(k + 50, 3, 4, 2)
        examples, steps = draw(st.integers(1, 9)), draw(st.integers(1, 5))
        index = torch.tensor(places)
        slices = {"w": Channels(dim, index)} if len(places) < width or draw(st.booleans()) else {}
        cut, beside = (one.index_select(dim, index) if slices else one for one in (new, variate))
        parts.append(Update(k, examples, {"w": cut}, {}, steps, {"variate..w": beside}, slices))
        own = {f"w{i}": new.select(dim, i) for i in places}
        extra = {f"variate..w{i}": variate.select(dim, i) for i in places}
        alone.append(Update(k, examples, own, {}, steps, extra))
    return parts, alone, dim


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@settings(max_examples=10, deadline=None)
@given(st.lists(pairs(), min_size=1, max_size=3))
def test_channels_are_as_tensors_of_their_own(
    strategy: Strategy, rounds: list[tuple[list[Update], list[Update], int]]
) -> None:
    dim = rounds[0][2]
    whole, one, other = drawn(99, 3, 4, 2), {}, {}
    tensors = {"w": whole}
    apart = {f"w{i}": whole.select(dim, i).clone() for i in range(whole.shape[dim])}
    for number, (parts, alone, own_dim) in enumerate(rounds):
        if own_dim != dim:
            continue
        found = strategy.combine(Round.of(number, tensors, parts, DEVICES, 0.5), one)
        expected = strategy.combine(Round.of(number, apart, alone, DEVICES, 0.5), other)
        tensors, one, apart, other = found.tensors, found.state, expected.tensors, expected.state
        for i in range(whole.shape[dim]):
            assert torch.allclose(tensors["w"].select(dim, i), apart[f"w{i}"], atol=1e-6)
        if isinstance(strategy, Scaffold):
            for i in range(whole.shape[dim]):
                if f"sum:w{i}" in other:
                    assert torch.allclose(one["sum:w"].select(dim, i), other[f"sum:w{i}"])


def test_whole_updates_are_one_group_and_no_copy_of_another_shape() -> None:
    whole = drawn(0, 3, 4, 2)
    (places,) = places_of("w", [Update(0, 1, {"w": whole}), Update(1, 1, {"w": whole})], whole)
    assert places.cells is None
    assert places.of(whole) is whole
    assert not list(places_of("w", [Update(0, 1, {}), Update(1, 1, {"w": whole}, {"w": 0.0})], whole))


def test_places_are_grouped_by_who_trained_them() -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    left, right = Channels(1, torch.tensor([0, 1])), Channels(1, torch.tensor([1, 3]))
    updates = [
        Update(0, 1, {"w": whole[:, :2]}, slices={"w": left}),
        Update(1, 1, {"w": whole[:, [1, 3]]}, slices={"w": right}),
    ]
    groups = {tuple(u.partition_id for u, *_ in one.said): one for one in places_of("w", updates, whole)}
    assert set(groups) == {(0,), (1,), (0, 1)}
    both = groups[0, 1]
    assert torch.equal(both.of(whole).flatten(), whole[:, 1])
    assert all(torch.equal(values.flatten().float(), whole[:, 1]) for *_, values in both.said)
    new = both.put(whole, torch.zeros(3, 1))
    assert torch.equal(new[:, [0, 2, 3]], whole[:, [0, 2, 3]])
    assert float(new[:, 1].abs().sum()) == 0.0


@pytest.mark.parametrize("shape", [(), (3,), (3, 4), (3, 4, 2, 2), (0, 4)])
def test_every_tensor_has_cells(shape: tuple[int, ...]) -> None:
    assert by_cell(torch.zeros(shape)).numel() == torch.zeros(shape).numel()


@pytest.mark.parametrize(
    ("dim", "places", "cause"),
    [
        (0, [0, 2], r"w has shape \(3, 2\), not \(2, 4\)"),
        (2, [0], "a part of w along dimension 2, and it has 2"),
        (1, [2, 0], "a part of w at places that are not ascending, each once, from 0 to 3"),
        (1, [0, 0], "not ascending, each once"),
        (1, [-1, 2], "not ascending, each once"),
        (1, [2, 4], "from 0 to 3"),
        (1, [], "from 0 to 3"),
    ],
)
def test_parts_that_belong_nowhere_are_named(dim: int, places: list[int], cause: str) -> None:
    tensors = {"w": torch.zeros(3, 4)}
    index = torch.tensor(places, dtype=torch.int64)
    with pytest.raises(UpdateError, match=cause):
        check_update(
            Update(0, 1, {"w": torch.zeros(3, 2)}, slices={"w": Channels(dim, index)}), tensors, {"w"}
        )
    two = {"w": Channels(1, torch.tensor([0, 2]))}
    check_update(Update(0, 1, {"w": torch.zeros(3, 2)}, slices=two), tensors, {"w"})
    with pytest.raises(UpdateError, match="a part of w without its tensor"):
        check_update(Update(0, 1, {}, slices=two), tensors, set())


def test_what_comes_beside_a_part_has_its_shape() -> None:
    part = {"w": Channels(1, torch.tensor([0, 2]))}
    tensors = {"w": torch.zeros(3, 4)}
    fine = Update(0, 1, {"w": torch.zeros(3, 2)}, extra={"variate..w": torch.zeros(3, 2)}, slices=part)
    Scaffold().check(fine, tensors)
    wrong = Update(0, 1, {"w": torch.zeros(3, 2)}, extra={"variate..w": torch.zeros(3, 4)}, slices=part)
    with pytest.raises(UpdateError, match=r"variate..w has shape \(3, 4\), not \(3, 2\)"):
        Scaffold().check(wrong, tensors)
