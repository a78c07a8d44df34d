"""The plain loop's executor, and one reply per job from any executor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fed_asi.devices.reply import Reply, failure
from fed_asi.rounds.executor import LoopExecutor, one_reply_a_job
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import job, small

TRIO = [job(partition_id=i) for i in (0, 1, 2)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("run")
    method = {"name": "asi-published", "layers": 1, "calibration_images": 8}
    groups = [{"name": "all", "count": 3, "budget": "unlimited", "batch_size": 8, "micro_batch": 4}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        return prepare(small(method=method, groups=groups, data={"limit": 60}), folder / "workplace")


def test_each_reply_has_the_bytes_a_message_would_have(place: Workplace, tmp_path: Path) -> None:
    tensor_bytes = sum(tensor.nbytes for tensor in place.reference.values())
    for reply in LoopExecutor(place, tmp_path).train(TRIO, place.reference):
        assert reply.outcome == "trained"
        assert reply.bytes_down == tensor_bytes + len(TRIO[reply.partition_id].to_json())
        assert reply.bytes_up == sum(t.nbytes for t in reply.tensors.values()) + len(reply.to_json())


def test_a_device_with_a_corrupt_file_trains_from_fresh_factors_and_says_so(
    place: Workplace, tmp_path: Path
) -> None:
    executor = LoopExecutor(place, tmp_path)
    (first,) = executor.train([job(round=1)], place.reference)
    assert first.notes == ()
    (tmp_path / "000002" / "round-000001.pt").write_bytes(b"half a file")
    (again,) = executor.train([job(round=2, factors_round=1)], place.reference)
    (fresh,) = LoopExecutor(place, tmp_path / "other").train([job(round=2)], place.reference)
    assert again.outcome == "trained"
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in fresh.tensors.items())
    (note,) = again.notes
    assert note.startswith("device 2 started from fresh factors: ")
    assert "round-000001.pt is corrupt" in note


def test_there_is_one_reply_a_job_whatever_an_executor_gives() -> None:
    told: list[str] = []
    good, second, stray = (
        Reply(1, {"outcome": "trained"}),
        failure(1, "failed", "x"),
        failure(9, "failed", "x"),
    )
    found = list(one_reply_a_job([stray, good, second], TRIO, told.append))
    assert [reply.partition_id for reply in found] == [1, 0, 2]
    assert found[0] is good
    assert {(reply.outcome, reply.cause) for reply in found[1:]} == {("failed", "no reply came back")}
    assert told == [
        "a reply of device 9 is ignored: it was not asked",
        "a reply of device 1 is ignored: it has answered already",
    ]
