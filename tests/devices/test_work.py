from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fed_asi import layers
from fed_asi.devices.reply import answer
from fed_asi.devices.work import train_locally
from fed_asi.fleets.resources import Resources
from fed_asi.training.sgd import learning_rate
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import PLENTY, job, small


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(folder / "features"))
        return prepare(small(), folder / "workplace")


def test_a_device_trains_and_leaves_the_place_as_it_was(place: Workplace) -> None:
    before = {name: type(module) for name, module in place.tail.named_modules()}
    result = train_locally(place, job(), place.reference)
    assert result.stats["outcome"] == "trained"
    assert set(result.tensors) == set(place.reference)
    assert any(not torch.equal(result.tensors[n], place.reference[n]) for n in result.tensors)
    assert result.stats["num_examples"] == len(place.shard(2).train)
    assert result.stats["measured_bytes"] == result.stats["planned_bytes"]
    assert {name: type(module) for name, module in place.tail.named_modules()} == before
    assert not layers.factors(place.tail)


def test_the_same_job_gives_the_same_bits(place: Workplace) -> None:
    first, second = (train_locally(place, job(), place.reference) for _ in range(2))
    assert all(torch.equal(first.tensors[n], second.tensors[n]) for n in first.tensors)
    other = train_locally(place, job(round=2), place.reference)
    assert any(not torch.equal(first.tensors[n], other.tensors[n]) for n in first.tensors)


def test_shards_hold_every_row_once(place: Workplace) -> None:
    rows = [row for p in range(6) for row in (*place.shard(p).train, *place.shard(p).holdout)]
    assert sorted(rows) == list(range(len(place.labels)))


def test_one_step_equals_plain_autograd(place: Workplace) -> None:
    shard = place.shard(2)
    one = job(Resources(None, len(shard.train)), lr=0.1)
    result = train_locally(place, one, place.reference)
    rows = torch.from_numpy(shard.train)
    tail = place.tail
    for name, parameter in tail.named_parameters():
        parameter.requires_grad_(name in place.reference)
        if name in place.reference:
            parameter.data.copy_(place.reference[name])
    tail.eval()
    torch.nn.functional.cross_entropy(tail(place.inputs(rows)), place.labels[rows]).backward()
    trained = [p for n, p in tail.named_parameters() if n in place.reference]
    torch.nn.utils.clip_grad_norm_(trained, 2.0)
    for name, parameter in tail.named_parameters():
        if name in place.reference:
            assert parameter.grad is not None
            expected = parameter.detach() - 0.1 * (parameter.grad + 1e-4 * parameter.detach())
            moved = (expected - parameter).norm()
            assert (result.tensors[name] - expected).norm() < 1e-3 * moved, name
            parameter.grad = None
    tail.requires_grad_(False)


def test_below_the_smallest_plan_is_excluded_by_name(place: Workplace) -> None:
    result = train_locally(place, job(Resources(10, 16)), place.reference)
    assert result.stats["outcome"] == "excluded"
    assert "smallest plan" in result.stats["cause"]
    assert not result.tensors


def test_growing_activations_are_out_of_memory_before_anything_moves(place: Workplace) -> None:
    """A device fed larger features by mistake: the plan's promise breaks, the meter says so."""
    assert place.features is not None
    grown = replace(place, features=place.features.repeat_interleave(2, -1).repeat_interleave(2, -2))
    budget = train_locally(place, job(), place.reference).stats["planned_bytes"]
    result = train_locally(grown, job(Resources(budget, 16)), place.reference)
    assert result.stats["outcome"] == "out-of-memory"
    assert result.stats["measured_bytes"] > budget
    assert not result.tensors
    assert all(
        torch.equal(p, place.reference[n]) for n, p in place.tail.named_parameters() if n in place.reference
    )


def test_past_its_deadline_is_a_timeout(place: Workplace) -> None:
    result = train_locally(place, job(deadline_seconds=-1.0), place.reference)
    assert result.stats["outcome"] == "timeout"


def test_micro_batches_side_by_side_equal_one_after_another(place: Workplace) -> None:
    sequential = replace(
        place,
        config=place.config.model_copy(
            update={"compute": place.config.compute.model_copy(update={"side_by_side": False})}
        ),
    )
    small_steps = job(Resources(None, 16, 2), check=True)
    together = train_locally(place, small_steps, place.reference)
    apart = train_locally(sequential, replace(small_steps, check=False), place.reference)
    assert together.notes
    assert abs(together.stats["measured_bytes"] - apart.stats["measured_bytes"]) <= 16
    for name in together.tensors:
        torch.testing.assert_close(together.tensors[name], apart.tensors[name], rtol=1e-4, atol=1e-6)


def with_settings(place: Workplace, **sections: dict[str, object]) -> Workplace:
    parts = {key: getattr(place.config, key).model_copy(update=values) for key, values in sections.items()}
    return replace(place, config=place.config.model_copy(update=parts))


def test_gradients_at_the_batch_s_start_cost_no_byte_more_and_change_little(place: Workplace) -> None:
    train = {"update": "layer", "clip_norm": None}
    small_steps = job(Resources(None, 16, 2))
    exact, some, together = (
        train_locally(
            with_settings(place, train=train, compute={"gradients_at": where}), small_steps, place.reference
        )
        for where in ("micro-batch", 4, "batch")
    )
    counted = ("measured_bytes", "accumulator_bytes", "published_bytes", "steps", "num_examples")
    assert [exact.stats[key] for key in counted] == [together.stats[key] for key in counted]
    assert [exact.stats[key] for key in counted] == [some.stats[key] for key in counted]

    def apart(one: dict[str, torch.Tensor]) -> float:
        return sum(float((one[name] - exact.tensors[name]).square().sum()) for name in exact.tensors) ** 0.5

    assert 0.0 < apart(some.tensors) < apart(together.tensors) < 0.2 * apart(dict(place.reference))


def test_a_device_that_raises_is_failed_by_its_own_words(place: Workplace) -> None:
    broken = replace(place, labels=place.labels[:3])
    reply, kept = answer(broken, job(), place.reference, None)
    assert reply.stats["outcome"] == "failed"
    assert "IndexError" in reply.stats["cause"]
    assert not kept
    assert train_locally(place, job(), place.reference).stats["outcome"] == "trained"


@pytest.mark.parametrize(
    ("schedule", "round", "expected"),
    [("constant", 7, 0.1), ("cosine", 1, 0.1), ("cosine", 11, 0.01), ("cosine", 6, 0.055)],
)
def test_learning_rate(schedule: str, round: int, expected: float) -> None:
    assert learning_rate(0.1, 0.1, schedule, round, 11) == pytest.approx(expected)


def test_training_from_the_store_equals_training_through_the_whole_network(
    place: Workplace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    through = prepare(small(compute={"features": "off"}), tmp_path / "workplace")
    assert through.features is None
    whole = train_locally(through, job(), through.reference)
    stored = train_locally(place, job(), place.reference)
    assert whole.stats["measured_bytes"] == stored.stats["measured_bytes"]
    for name in stored.tensors:  # kernels may differ in the last bits with the batch they see
        torch.testing.assert_close(whole.tensors[name], stored.tensors[name], rtol=1e-5, atol=1e-6)


def test_what_a_plan_leaves_frozen_is_read_as_the_device_stores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    place = prepare(small(storage={"frozen": "int8"}), tmp_path / "workplace")
    plan = place.plans.first(PLENTY)
    frozen, *trained = plan.trained
    plan = replace(plan, methods={name: plan.methods[name] for name in trained})
    frozen = f"{frozen}.weight"
    moved = {name: tensor.clone() for name, tensor in place.reference.items()}
    moved[frozen][1::2] += 0.0123  # by other devices
    seen = []

    def look(tail: torch.nn.Module, _inputs: object) -> None:
        seen.append(tail.get_parameter(frozen).detach().clone())

    handle = place.tail.register_forward_pre_hook(layers.only_looks(look))
    result = train_locally(place, job(), moved, plan=plan)
    handle.remove()
    assert result.stats["outcome"] == "trained"
    assert frozen not in result.tensors
    rows = moved[frozen].flatten(1).double()
    scales = (rows.abs().amax(1, keepdim=True) / 127).float().double()
    stored = ((rows / scales).round() * scales).float().view_as(moved[frozen])
    assert len(seen) > 2  # before, in every step, and after
    assert all(torch.equal(one[1::2], stored[1::2]) for one in seen)
    assert all(torch.equal(one[0::2], place.reference[frozen][0::2]) for one in seen)
    assert not torch.equal(stored[1::2], moved[frozen][1::2])


@pytest.mark.parametrize("update", ["step", "layer"])
def test_weights_trained_in_float16_are_numbers_of_float16_and_take_less_ram(
    update: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path / "features"))
    ram = job(budget_bytes=None, ram_bytes=1 << 20, flash_bytes=1 << 20)
    found = {}
    for form in ("float32", "float16"):
        train = {"update": update, "clip_norm": None}
        made = prepare(small(train=train, storage={"trained": form}), tmp_path / form)
        results = [train_locally(made, ram, made.reference) for _ in range(2)]
        assert [one.stats["outcome"] for one in results] == ["trained", "trained"]
        assert all(torch.equal(a, results[1].tensors[name]) for name, a in results[0].tensors.items())
        said = "storage: trained weights are kept as float16, each move rounded up or down at random"
        assert (said in made.notes) == (form == "float16")
        found[form] = results[0]
    whole, half = found["float32"], found["float16"]
    assert any(not torch.equal(x, x.half().float()) for x in whole.tensors.values())
    for name, x in half.tensors.items():
        assert torch.equal(x, x.half().float())
        torch.testing.assert_close(x, whole.tensors[name], rtol=0.02, atol=0.002)
    saved = sum(x.nbytes for x in half.tensors.values()) // 2
    assert whole.stats["ram_bytes"] - half.stats["ram_bytes"] == saved
