"""A device's reply: it is read as it was sent, and a device fails alone, whatever its state holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fed_asi.devices import reply as replies
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, answer, do_job, failure, limit_bytes, payload_bytes
from fed_asi.devices.warm_factors import OnDisk, WarmFactors
from fed_asi.devices.work import LocalResult
from fed_asi.errors import RunError, UpdateError
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import job, small

TENSORS = {"a": torch.zeros(3)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("run")
    method = {"name": "asi-published", "layers": 1, "calibration_images": 8}
    groups = [{"name": "all", "count": 3, "budget": "unlimited", "batch_size": 8, "micro_batch": 4}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        return prepare(small(method=method, groups=groups, data={"limit": 60}), folder / "workplace")


def test_a_reply_survives_the_wire() -> None:
    stats = {"outcome": "trained", "num_examples": 3, "loss_after": 0.1 + 0.2, "budget_bytes": None}
    sent = Reply(2, stats, TENSORS, ("a",), {"a": 0.5}, ("note",), host_seconds=1.0)
    assert Reply.parse(job(), sent.to_json(), TENSORS) == replace(sent, host_seconds=None)
    assert (sent.outcome, sent.cause) == ("trained", None)
    assert payload_bytes(TENSORS, "{}") == 12 + 2


def test_numbers_that_are_not_finite_are_sent_as_none() -> None:
    sent = Reply(2, {"outcome": "trained", "loss_after": float("nan"), "loss_before": float("inf")})
    assert Reply.parse(job(), sent.to_json(), {}).stats == {
        "outcome": "trained",
        "loss_after": None,
        "loss_before": None,
    }


def test_the_job_decides_what_may_be_answered() -> None:
    calibrated = Reply(2, {"outcome": "calibrated"}).to_json()
    assert Reply.parse(job(phase="spectra"), calibrated, {}).outcome == "calibrated"
    with pytest.raises(UpdateError, match=r"stats.outcome: Input should be 'trained'"):
        Reply.parse(job(), calibrated, {})
    with pytest.raises(UpdateError, match="stats"):
        Reply.parse(job(phase="spectra"), Reply(2, {"outcome": "trained"}).to_json(), {})


def test_a_cause_is_readable() -> None:
    assert failure(3, "failed", "red\x1b[31m" + "x" * 600).cause == "red [31m" + "x" * 492 + "..."


def test_the_limit_is_what_is_expected_and_a_margin() -> None:
    assert limit_bytes({"a": 4000, "b": 96}) == 4096 + 2 * 1024 + 1024**2


def test_what_a_device_cannot_say_is_its_own_failure(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(*_given: object) -> LocalResult:
        return LocalResult({"outcome": "trained", "steps": np.int64(3)})

    monkeypatch.setattr(replies, "train_locally", odd)
    reply, kept = answer(place, job(), place.reference, None)
    assert (reply.outcome, kept) == ("failed", {})
    assert reply.cause == "TypeError: Object of type int64 is not JSON serializable"


class BrokenState:
    """A device's state that can be neither read nor written."""

    def factors(self, job: Job) -> WarmFactors | None:
        raise RunError("its card is gone")

    def keep(self, job: Job, factors: WarmFactors) -> None:
        raise RunError("its card is full")


def test_a_device_with_a_broken_state_trains_from_fresh_factors_and_says_so(place: Workplace) -> None:
    asked = job(factors_round=3)
    broken, fresh = (
        do_job(place, asked, place.reference, BrokenState()),
        answer(place, asked, place.reference, None),
    )
    assert broken.outcome == "trained"
    assert all(torch.equal(broken.tensors[name], tensor) for name, tensor in fresh[0].tensors.items())
    assert broken.notes == (
        "device 2 started from fresh factors: its card is gone",
        "device 2 could not keep its warm factors: its card is full",
    )
    assert json.loads(broken.to_json())["notes"] == list(broken.notes)
    assert (
        broken.stats["factors_bytes"] == 0
    )  # so its next round starts afresh, also in a run that is resumed


def test_warm_factors_go_from_round_to_round(place: Workplace, tmp_path: Path) -> None:
    state = OnDisk(tmp_path)
    first = do_job(place, job(round=1), place.reference, state)
    warm = do_job(place, job(round=2, factors_round=1), place.reference, state)
    cold = do_job(place, job(round=2), place.reference, state)
    assert first.notes == warm.notes == cold.notes == ()
    assert any(not torch.equal(warm.tensors[name], cold.tensors[name]) for name in warm.tensors)


@pytest.mark.parametrize("phase", ["train", "spectra"])
def test_a_device_computes_in_whole_float32_on_a_gpu_whatever_it_is_asked(
    phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = list[str]()

    @contextmanager
    def exact(device: str) -> Iterator[None]:
        done.append(f"exact on {device}")
        yield
        done.append("as before")

    def worked(*_: Any) -> Any:
        done.append("worked")
        return {} if phase == "spectra" else LocalResult({"outcome": "trained"}, {}, {})

    monkeypatch.setattr(replies, "exact", exact)
    monkeypatch.setattr(replies, "sums_for", worked)
    monkeypatch.setattr(replies, "train_locally", worked)
    there: Any = SimpleNamespace(device="a GPU", reference={})
    found, _ = answer(there, job(phase=phase), {}, None)
    assert found.outcome in {"trained", "calibrated"}
    assert done == ["exact on a GPU", "worked", "as before"]
