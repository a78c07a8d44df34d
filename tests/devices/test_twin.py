"""Twins: what a device would have done without its budget, to the bit, and what a twin must not affect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from fed_asi.devices import twin as twins
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, answer
from fed_asi.devices.twin import compared, with_twin
from fed_asi.devices.work import train_locally
from fed_asi.fleets.resources import Resources
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import PLENTY, job, small

TIGHT, NOTHING = Resources(24 * 1024, 16), Resources(10, 16)
ASI = {"name": "asi", "layers": 2, "centered": None, "calibration_images": 16}
GROUPS = [{"name": "all", "count": 6, "budget": "unlimited", "batch_size": 16, "micro_batch": 8}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        images = {"public": 32, "limit": 90}
        return prepare(small(method=ASI, groups=GROUPS, data=images), folder / "workplace")


def columns(reply: Reply) -> dict[str, Any]:
    return {name: value for name, value in reply.stats.items() if name.startswith("twin_")}


def reply_to(place: Workplace, asked: Job, **factors: Any) -> Reply:
    return answer(place, asked, place.reference, factors or None)[0]


@pytest.mark.few(2)
@pytest.mark.parametrize("kind", ["unlimited", "plain"])
@pytest.mark.parametrize("resources", [TIGHT, PLENTY, NOTHING], ids=["tight", "unlimited", "too tight"])
def test_a_device_with_a_twin_hands_in_what_it_would_without(
    place: Workplace, resources: Resources, kind: Any
) -> None:
    alone = reply_to(place, job(resources))
    beside = reply_to(place, job(resources, twin=kind))
    assert alone.tensors.keys() == beside.tensors.keys()
    assert all(torch.equal(alone.tensors[n], beside.tensors[n]) for n in alone.tensors)
    own = {name: value for name, value in beside.stats.items() if name in alone.stats}
    assert own == alone.stats
    assert columns(beside)
    assert (beside.trained, beside.weights, beside.notes) == (alone.trained, alone.weights, alone.notes)


def test_a_twin_is_the_same_device_with_an_unlimited_budget(place: Workplace) -> None:
    found = columns(reply_to(place, job(TIGHT, twin="unlimited")))
    free = reply_to(place, job(PLENTY))
    for name in ("measured_bytes", "loss_after", "accuracy_after"):
        assert found[f"twin_{name}"] == free.stats[name]
    own = reply_to(place, job(TIGHT))
    moves = [
        torch.cat([(one.tensors[n].double() - place.reference[n]).flatten() for n in sorted(free.tensors)])
        for one in (own, free)
    ]
    assert found["twin_cosine"] == pytest.approx(float(torch.cosine_similarity(*moves, dim=0)))
    assert found["twin_norm_ratio"] == pytest.approx(float(moves[0].norm() / moves[1].norm()))
    assert found["twin_cosine"] < 1


@pytest.mark.parametrize("resources", [PLENTY, Resources(1 << 40, 16)], ids=["unlimited", "more than enough"])
def test_the_twin_of_a_device_whose_budget_limits_nothing_is_that_device(
    place: Workplace, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = columns(reply_to(place, job(resources, twin="unlimited")))
    monkeypatch.setattr(
        twins, "step_of", lambda *_: object()
    )  # so that it is trained, not known to be the same
    trained = columns(reply_to(place, job(resources, twin="unlimited")))
    own = reply_to(place, job(resources)).stats
    assert trained == seen
    assert (seen["twin_cosine"], seen["twin_norm_ratio"]) == (1.0, 1.0)
    assert (seen["twin_loss_after"], seen["twin_accuracy_after"]) == (
        own["loss_after"],
        own["accuracy_after"],
    )


def test_a_plain_twin_keeps_every_input_whole(place: Workplace) -> None:
    """One step of it is autograd's own; the method's, which subtracts means, is not."""
    shard = place.shard(2)
    one = job(Resources(1 << 14, len(shard.train)), lr=0.1)
    kept = []

    def train(*given: Any) -> Any:
        kept.append(train_locally(*given))
        return kept[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twins, "train_locally", train)
        result = train_locally(place, one, place.reference)
        with_twin(place, replace(one, twin="plain"), place.reference, None, result)
    (twin,) = kept
    rows, tail = torch.from_numpy(shard.train), place.tail
    for name, parameter in tail.named_parameters():
        parameter.requires_grad_(name in place.reference)
        if name in place.reference:
            parameter.data.copy_(place.reference[name])
    torch.nn.functional.cross_entropy(tail.eval()(place.inputs(rows)), place.labels[rows]).backward()
    torch.nn.utils.clip_grad_norm_([p for p in tail.parameters() if p.grad is not None], 2.0)
    for name, parameter in tail.named_parameters():
        if parameter.grad is not None:
            moved = -0.1 * (parameter.grad + 1e-4 * parameter.detach())
            assert (twin.tensors[name] - place.reference[name] - moved).norm() < 1e-3 * moved.norm() + 1e-6, (
                name
            )
            parameter.grad = None
    tail.requires_grad_(False)


def test_a_device_left_out_by_its_budget_has_its_before_and_its_twin_but_no_cosine(place: Workplace) -> None:
    left_out = reply_to(place, job(NOTHING, twin="unlimited"))
    free = reply_to(place, job(PLENTY)).stats
    assert left_out.outcome == "excluded"
    assert left_out.stats["accuracy_before"] == free["accuracy_before"]
    assert left_out.stats["twin_accuracy_after"] == free["accuracy_after"]
    assert "twin_cosine" not in left_out.stats
    assert not left_out.tensors


def test_a_device_that_was_late_has_no_twin(place: Workplace) -> None:
    assert columns(reply_to(place, job(TIGHT, twin="unlimited", deadline_seconds=-1.0))) == {}


ENDS: list[tuple[Any, str]] = [
    (RuntimeError("no luck\nat all"), "RuntimeError: no luck"),
    (SystemExit(3), "SystemExit: 3"),
    (MemoryError(), "MemoryError"),
]


@pytest.mark.parametrize(("error", "said"), ENDS, ids=[said for _, said in ENDS])
def test_a_twin_that_raises_is_a_note_and_the_device_keeps_its_update(
    place: Workplace, error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = reply_to(place, job(TIGHT))

    def fails(*_given: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("fed_asi.devices.twin.train_locally", fails)
        beside = reply_to(place, job(TIGHT, twin="unlimited"))
    assert beside.stats == alone.stats
    assert all(torch.equal(alone.tensors[n], beside.tensors[n]) for n in alone.tensors)
    (note,) = beside.notes
    assert note.startswith(f"the twin of device 2 failed ({said}")
    assert note.isprintable()


def test_a_twin_past_its_deadline_is_a_note(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(place: Workplace, free: Job, *rest: Any) -> Any:
        return train_locally(place, replace(free, deadline_seconds=-1.0), *rest)

    monkeypatch.setattr(twins, "train_locally", late)
    reply = reply_to(place, job(TIGHT, twin="unlimited"))
    assert reply.outcome == "trained"
    assert columns(reply) == {}
    assert "failed (timeout: past its deadline" in reply.notes[0]


def test_a_step_that_was_not_ended_leaves_no_gradient_for_the_next_device(place: Workplace) -> None:
    alone = train_locally(place, job(TIGHT), place.reference)
    broken = replace(place, labels=place.labels[:3])
    with pytest.raises(IndexError):
        train_locally(broken, job(TIGHT), place.reference)
    for parameter in place.tail.parameters():
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(IndexError):
        train_locally(broken, job(TIGHT), place.reference)
    again = train_locally(place, job(TIGHT), place.reference)
    assert all(torch.equal(alone.tensors[n], again.tensors[n]) for n in alone.tensors)


def test_cosine_and_ratio_by_hand() -> None:
    sent = {"a": torch.zeros(2), "b": torch.ones(1)}
    x, y = {"a": torch.tensor([3.0, 0.0])}, {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([5.0])}
    assert compared(x, y, sent) == {"twin_cosine": pytest.approx(0.6), "twin_norm_ratio": pytest.approx(0.6)}
    opposite = {"a": torch.tensor([-1.0, 0.0])}
    assert compared(x, opposite, sent) == {"twin_cosine": -1.0, "twin_norm_ratio": 3.0}
    nothing: dict[str, Any] = {"twin_cosine": None, "twin_norm_ratio": None}
    assert compared(x, {"a": torch.zeros(2)}, sent) == nothing
    assert compared(x, {"a": torch.tensor([float("nan"), 0.0])}, sent) == nothing
    assert compared({"a": torch.tensor([float("inf"), 0.0])}, x, sent) == nothing


@pytest.mark.few(4)
@pytest.mark.parametrize("seed", range(20))
def test_equal_updates_have_cosine_and_ratio_one_exactly(seed: int) -> None:
    drawn = torch.Generator().manual_seed(seed)
    sent = {name: torch.randn(17, generator=drawn) for name in "abc"}
    moved = {name: one + 1e-3 * torch.randn(17, generator=drawn) for name, one in sent.items()}
    assert compared(moved, dict(moved), sent) == {"twin_cosine": 1.0, "twin_norm_ratio": 1.0}
