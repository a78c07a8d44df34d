"""What holds for every strategy: pure, order-independent, tensor by tensor, and finite whatever a device sends."""

from __future__ import annotations

import random
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_asi import codecs, strategies
from fed_asi.errors import ConfigError, UpdateError
from fed_asi.rounds import checkpoints
from fed_asi.strategies import Combined, Round, Strategy, Update, register
from fed_asi.strategies.base import extra_name, rounded
from fed_asi.strategies.fedadam import FedAdam
from fed_asi.strategies.fedavg import FedAvg
from fed_asi.strategies.fedavgm import FedAvgM
from fed_asi.strategies.krum import Krum
from fed_asi.strategies.norm_bound import NormBound
from fed_asi.strategies.scaffold import Scaffold
from fed_asi.strategies.server_optimizer import ServerOptimizer
from fed_asi.strategies.trimmed_mean import TrimmedMean
from rounds_drawn import DEVICES, gaussian, rounds, several, whole

NAMES = ["fedadagrad", "fedadam", "fedavg", "fedavgm", "fednova", "fedprox", "fedyogi", "krum", "median",
         "norm-bound", "scaffold", "trimmed-mean"]  # fmt: skip
OTHERS = {"krum": {"hostile": 0}, "norm-bound": {"max_norm": 0.5}}
EVERY = [strategies.find(name)(**OTHERS.get(name, {})) for name in NAMES]
MORE = [
    *EVERY, Krum(hostile=1, keep=3), FedAdam(bias_correction=True), TrimmedMean(0.4), FedAdam(initial_v=1e-6),
    FedAvgM(server_lr=5.0),
]  # fmt: skip


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_they_are_found_by_themselves() -> None:
    assert strategies.names() == NAMES
    with pytest.raises(ConfigError, match="unknown strategy 'fedadm'; did you mean fedadam"):
        strategies.find("fedadm")


@pytest.mark.parametrize("strategy", MORE, ids=str)
@settings(max_examples=8, deadline=None)
@given(first=rounds(), second=rounds(), seed=st.integers(0, 99))
def test_neither_order_nor_chance_changes_a_bit(
    strategy: Strategy, first: Round, second: Round, seed: int
) -> None:
    shuffled = [list(first.updates), list(second.updates)]
    for one in shuffled:
        random.Random(seed).shuffle(one)
    ends = []
    for updates in ([first.updates, second.updates], shuffled):
        start = Round.of(1, first.tensors, list(updates[0]), DEVICES, first.momentum)
        middle = strategy.combine(start, {})
        again = Round.of(2, middle.tensors, list(updates[1]), DEVICES, first.momentum)
        ends.append(strategy.combine(again, middle.state))
    assert same(ends[0].tensors, ends[1].tensors)
    assert same(dict(ends[0].state), dict(ends[1].state))
    assert ends[0].tensors.keys() == first.tensors.keys()


@pytest.mark.parametrize("strategy", MORE, ids=str)
@settings(max_examples=8, deadline=None)
@given(first=rounds(fewest=1), second=rounds())
def test_a_tensor_nobody_trained_stays_and_nothing_is_written_to(
    strategy: Strategy, first: Round, second: Round
) -> None:
    state = strategy.combine(first, {}).state
    before = [
        {name: tensor.clone() for name, tensor in one.items()}
        for one in (second.tensors, state, *(u.tensors for u in second.updates))
    ]
    found = strategy.combine(second, state)
    after = (second.tensors, state, *(u.tensors for u in second.updates))
    assert all(same(one, dict(other)) for one, other in zip(before, after, strict=True))
    for name, tensor in second.tensors.items():
        assert (found.tensors[name].dtype, found.tensors[name].shape) == (tensor.dtype, tensor.shape)
        if not any(name in update.tensors for update in second.updates):
            assert torch.equal(found.tensors[name], tensor)
            assert found.tensors[name] is not tensor
            own = [key for key in state if key.endswith(f":{name}")]
            assert all(torch.equal(found.state[key], state[key]) for key in own)


BY_TENSOR = [
    one for one in MORE if one.name not in {"krum", "norm-bound", "scaffold"}
]  # these look at all of them


@pytest.mark.parametrize("strategy", BY_TENSOR, ids=str)
@settings(max_examples=8, deadline=None)
@given(given=st.lists(rounds(), min_size=3, max_size=3))
def test_a_tensor_is_as_if_there_were_no_other(strategy: Strategy, given: list[Round]) -> None:
    """So what whole updates come to, which other tests say, partial ones come to."""
    tensors, state = several(strategy, given)
    for name, tensor in tensors.items():
        alone = []
        for one in given:
            who = [u for u in one.updates if name in u.tensors]
            own = [replace(u, tensors={name: u.tensors[name]}, extra={}) for u in who]
            alone.append(replace(one, tensors={name: given[0].tensors[name]}, updates=tuple(own)))
        expected, its_state = several(strategy, alone)
        assert torch.equal(tensor, expected[name])
        assert same(dict(its_state), {key: t for key, t in state.items() if key.endswith(f":{name}")})


@pytest.mark.few(17)
@pytest.mark.parametrize("strategy", MORE, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_hugest_finite_update_leaves_finite_weights_and_state(
    strategy: Strategy, dtype: torch.dtype
) -> None:
    most = 1e100 if dtype == torch.float64 else torch.finfo(dtype).max
    tensors, state = gaussian(0, dtype=dtype), {}
    for round in range(1, 6):
        updates = []
        for k, value in enumerate((most, -most, most, most, most)):
            new = {name: torch.full_like(tensor, value) for name, tensor in tensors.items()}
            beside = {extra_name("variate", name): tensor for name, tensor in new.items()}
            updates.append(Update(k, 2**63 - 1 if k else 1, new, {}, k + 1, beside))
        found = strategy.combine(Round.of(round, tensors, updates, DEVICES, 0.0), state)
        tensors, state = found.tensors, found.state
        sent = strategy.sent(state, tensors)
        for tensor in (*tensors.values(), *state.values(), *sent.values()):
            assert bool(torch.isfinite(tensor).all())


@pytest.mark.parametrize("strategy", MORE, ids=str)
def test_a_state_read_from_its_checkpoint_goes_on_with_the_same_bits(
    strategy: Strategy, tmp_path: Path
) -> None:
    tensors, state = gaussian(0), {}
    there, back = dict(tensors), {}
    for round in range(1, 5):
        ids = [k for k in range(7) if (k + round) % 3]
        found = strategy.combine(whole(ids, tensors, round), state)
        again = strategy.combine(whole(ids, there, round), back)
        tensors, state = found.tensors, found.state
        checkpoints.save(tmp_path, checkpoints.Checkpoint(round, "x", again.tensors, again.state))
        loaded = checkpoints.load(tmp_path, round, "x")
        there, back = loaded.tensors, loaded.strategy
        assert same(tensors, there)
        assert same(dict(state), dict(back))
        assert same(strategy.sent(state, tensors), strategy.sent(back, there))


@pytest.mark.parametrize("strategy", MORE, ids=str)
def test_rounds_without_updates_change_nothing(strategy: Strategy) -> None:
    start = whole([], gaussian(0))
    found = strategy.combine(start, {})
    assert same(found.tensors, dict(start.tensors))
    later = strategy.combine(whole([1, 2, 3], gaussian(0)), found.state)
    assert same(dict(strategy.combine(start, later.state).state), dict(later.state))


@settings(max_examples=30, deadline=None)
@given(rounds())
def test_fedavg_is_the_weighted_mean_to_the_bit_and_of_one_device_its_update(drawn: Round) -> None:
    found = FedAvg().combine(drawn, {}).tensors
    for name, tensor in drawn.tensors.items():
        who = [u for u in drawn.updates if name in u.tensors]
        total = np.zeros(tensor.shape, dtype=np.float64)
        for update in who:
            total += update.tensors[name].numpy().astype(np.float64) * update.num_examples
        count = sum(update.num_examples for update in who)
        expected = (total / count).astype(np.float32) if who else tensor.numpy()
        assert np.array_equal(found[name].numpy(), expected)
    for update in drawn.updates[:1]:
        alone = FedAvg().combine(replace(drawn, updates=(update,)), {}).tensors
        assert all(torch.equal(alone[name], tensor) for name, tensor in update.tensors.items())


def test_a_device_that_hands_in_twice_is_an_error() -> None:
    update = Update(3, 1, gaussian(0))
    with pytest.raises(UpdateError, match=r"two updates: \[3, 3\]"):
        Round.of(1, gaussian(0), [update, update], DEVICES, 0.0)


@pytest.mark.parametrize(
    ("beside", "cause"),
    [
        ({}, "missing tensor variate..head.weight"),
        ({"head.weight": (2, 3), "conv.bias": (3,)}, "surplus tensor variate..conv.bias"),
        ({"head.weight": (3, 2)}, r"variate..head.weight has shape \(3, 2\), not \(2, 3\)"),
        ({"head.weight": float("nan")}, "variate..head.weight holds NaN"),
        ({"head.weight": float("inf")}, "variate..head.weight holds Inf"),
    ],
)
def test_what_comes_beside_the_weights_is_looked_at(beside: dict, cause: str) -> None:
    head = {"head.weight": gaussian(0)["head.weight"]}
    extra = {
        f"variate..{name}": torch.zeros(of) if isinstance(of, tuple) else torch.full((2, 3), of)
        for name, of in beside.items()
    }
    with pytest.raises(UpdateError, match=cause):
        Scaffold().check(Update(0, 1, head, extra=extra), gaussian(0))
    Scaffold().check(Update(0, 1, head, extra={"variate..head.weight": torch.zeros(2, 3)}), gaussian(0))
    with pytest.raises(UpdateError, match=r"surplus tensor variate..head\.weight"):
        FedAvg().check(Update(0, 1, head, extra={"variate..head.weight": torch.zeros(2, 3)}), gaussian(0))


def test_rounding_stays_within_the_type() -> None:
    far = torch.tensor([1e300, -1e300, 0.5, float("inf")], dtype=torch.float64)
    most = torch.finfo(torch.float32).max
    assert rounded(far, torch.zeros(4)).tolist() == [most, -most, 0.5, most]
    assert rounded(far, torch.zeros(4, dtype=torch.float64)).tolist() == [1e100, -1e100, 0.5, 1e100]


def test_one_of_ones_own_is_registered_by_its_name(own_names: None) -> None:
    @register
    @dataclass(frozen=True, slots=True)
    class Last(Strategy):
        name: ClassVar[str] = "last"
        times: int = 1

        def combine(self, given: Round, state: object) -> Combined:
            return Combined({**given.tensors, **given.updates[-1].tensors}, {})

    assert strategies.find("last") is Last
    assert strategies.owners_of("times") == ["last"]
    assert strategies.owners_of("beta2") == ["fedadam", "fedyogi"]
    # The last one has a combine, of a base that leaves the step to its subclasses.
    unfit = (
        type("NoName", (Last,), {"name": ""}),
        *(type("Silent", (base,), {"name": "silent"}) for base in (Strategy, ServerOptimizer)),
    )
    for one in unfit:
        with pytest.raises(
            ConfigError, match=f"{one.__name__}: it must be a Strategy with a name and a combine"
        ):
            register(one)


def test_a_bound_moves_nobody_further() -> None:
    drawn = whole([1, 2, 3], gaussian(0))
    found = NormBound(max_norm=1e-3).combine(drawn, {}).tensors
    moved = sum(float((found[n] - t).double().square().sum()) for n, t in drawn.tensors.items()) ** 0.5
    assert 0.0 < moved <= 1e-3 * (1 + 1e-3)
    assert same(NormBound(max_norm=1e3).combine(drawn, {}).tensors, FedAvg().combine(drawn, {}).tensors)


def test_the_document_names_every_strategy_and_key_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "strategies.md").read_text()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    for cls in (*map(strategies.find, NAMES), *map(codecs.find, codecs.names())):
        for one in fields(cls):
            if cls.name == "plain":
                continue
            default = "no default" if one.default is MISSING else format_default(one.default)
            assert f"`{one.name}` {default}" in rows[cls.name].replace("`, no", "` no"), cls.name


def format_default(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}".replace("0.001", "1e-3")
