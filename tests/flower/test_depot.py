"""Requests of remote workers to the server's machine: answered, refused in one line, or unreachable in one line."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray import exceptions

from fed_asi.errors import RunError
from fed_asi.flower.depot import Depot, Desk, open_depot
from fed_asi.flower.home import word_left
from runs import job

FULL = "the object store of node 10.0.0.7 is full: start it with a larger"
FACTORS = {"conv": [torch.randn(2, 48).t(), torch.zeros(0), torch.randn(3, 1)]}


class Far:
    """A desk as Ray would have it: what goes there and comes back is pickled."""

    def __init__(self, desk: Desk, fails: BaseException | None = None) -> None:
        self.answer = SimpleNamespace(remote=self._remote)
        self._desk, self._fails = desk, fails

    def _remote(self, call: str, *arguments: Any) -> Any:
        if self._fails is not None:
            return self._fails
        return pickle.loads(pickle.dumps(self._desk.answer(call, *pickle.loads(pickle.dumps(arguments)))))


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's `get` gives what is there, and raises what is an error."""
    import ray

    def get(found: Any, timeout: float) -> Any:
        assert timeout > 0
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(str(tmp_path / "workplace"), str(tmp_path / "devices"))


@pytest.mark.usefixtures("near")
def test_factors_are_kept_on_the_servers_disk_in_the_layout_they_had(desk: Desk, tmp_path: Path) -> None:
    depot = Depot(Far(desk))
    assert depot.factors(job()) is None
    depot.keep(job(round=4), {})
    assert not (tmp_path / "devices").exists()
    depot.keep(job(round=4), FACTORS)
    found = depot.factors(job(round=5, factors_round=4))
    assert found is not None
    for back, part in zip(found["conv"], FACTORS["conv"], strict=True):
        assert torch.equal(back, part)
        assert back.stride() == part.stride()
    with pytest.raises(RunError, match=r"^.*round-000003.*$"):
        depot.factors(job(factors_round=3))


@pytest.mark.usefixtures("near")
def test_word_of_a_device_is_left_where_the_server_looks(desk: Desk, tmp_path: Path) -> None:
    depot, states = Depot(Far(desk)), tmp_path / "devices"
    depot.begin(job())
    assert word_left(states, job()) == ""
    depot.late(job())
    assert word_left(states, job()) == "late"
    depot.clear(job())
    assert word_left(states, job()) is None


@pytest.mark.usefixtures("near")
def test_tensors_are_those_that_are_held_until_they_are_not(desk: Desk) -> None:
    depot, tensors = Depot(Far(desk)), {"w": torch.randn(3, 2), "n": torch.tensor(4)}
    desk.hold("parcel-1", [{name: tensor.numpy() for name, tensor in tensors.items()}])
    found = depot.tensors("parcel-1")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    found["w"] += 1  # a copy
    assert torch.equal(depot.tensors("parcel-1")["w"], tensors["w"])
    desk.drop("parcel-1")
    with pytest.raises(RunError, match="the tensors parcel-1 of this run are gone"):
        depot.tensors("parcel-1")


@pytest.mark.usefixtures("near")
def test_what_the_desk_refuses_is_its_one_line(desk: Desk) -> None:
    depot = Depot(Far(desk))
    with pytest.raises(RunError, match=r"^no prepared workplace in .*$"):
        depot.listing()
    with pytest.raises(RunError, match=r"base\.pt cannot be read"):
        depot.piece("base.pt", 0)
    with pytest.raises(RunError, match="no prepared workplace"):
        depot.rows([1])


@pytest.mark.usefixtures("near")
@pytest.mark.parametrize(
    ("error", "why"),
    [
        (
            exceptions.ObjectStoreFullError("no room"),
            "the object store of node 10.0.0.7 is full: start it with a larger",
        ),
        (
            exceptions.OutOfDiskError("no room"),
            "the object store of node 10.0.0.7 is full: start it with a larger",
        ),
        (
            exceptions.GetTimeoutError("in 5 s"),
            "the server's machine does not answer: GetTimeoutError: in 5 s",
        ),
    ],
)
def test_what_ray_raises_is_one_line(desk: Desk, error: Exception, why: str) -> None:
    depot = Depot(Far(desk, error))
    with pytest.raises(RunError, match=f"^{why}"):
        depot.begin(job())
    depot.clear(job())  # which nobody waits for


@pytest.mark.usefixtures("near")
def test_a_ray_that_has_ended_is_one_line_and_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    def ended(*_: Any, **__: Any) -> Any:
        raise exceptions.RaySystemError("Ray has not been started yet")

    asked, desk = list[Any](), SimpleNamespace(answer=SimpleNamespace(remote=ended))
    options = SimpleNamespace(remote=lambda *_: desk)
    here = SimpleNamespace(get_node_id=lambda: "0" * 56)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: here)
    monkeypatch.setattr(ray, "remote", lambda _: SimpleNamespace(options=lambda **_: options))
    monkeypatch.setattr(ray, "put", lambda arrays: arrays)
    monkeypatch.setattr(ray, "kill", asked.append)  # which starts Ray where there is none
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(RunError, match=r"^the server's machine does not answer: RaySystemError: "),
        open_depot(tmp_path / "workplace", tmp_path / "devices") as parcels,
        parcels.holding({"w": torch.zeros(1)}),
    ):
        pass
    assert asked == []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with open_depot(tmp_path / "workplace", tmp_path / "devices"):
        pass
    assert asked == [desk]
