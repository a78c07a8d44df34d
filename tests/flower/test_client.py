"""A device's side of Flower: its identity, and jobs that are not for it."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fed_asi.errors import FedAsiError, RunError
from fed_asi.flower import messages
from fed_asi.flower.client import client_app, partition_id, train, who
from fed_asi.workplace.address import RunAddress
from runs import job


def node(**config: Any) -> Context:
    return Context(1, 5, {key.replace("_", "-"): value for key, value in config.items()}, RecordDict(), {})


def message(content: RecordDict | None = None, kind: str = "train") -> Message:
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    return Message(content or RecordDict(), 5, kind)


def test_the_app_answers_a_query_with_who_it_is() -> None:
    answer = client_app()(message=message(kind="query"), context=node(partition_id=2, budget="4096"))
    found = messages.read_who(answer.content)
    assert (found.partition_id, found.budget) == (2, 4096)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({}, "this node has no partition-id: start it with --node-config 'partition-id=0 ...'"),
        (
            {"partition_id": "two"},
            "this node's partition-id is 'two', which is not a number of a device: start",
        ),
        ({"partition_id": -1}, "this node's partition-id is -1, which is not a number"),
        ({"partition_id": 1.5}, "this node's partition-id is 1.5, which is not a number"),
        ({"partition_id": True}, "this node's partition-id is True, which is not a number"),
        ({"partition_id": "9" * 30}, "this node's partition-id is '999"),
        (
            {"partition_id": 0, "budget": "64 KiB"},
            "this node's budget is '64 KiB', which is not a number of bytes",
        ),
    ],
)
def test_a_node_that_was_started_wrong_says_so(config: dict[str, Any], why: str) -> None:
    with pytest.raises(RunError) as caught:
        who(message(kind="query"), node(**config))
    assert str(caught.value).startswith(why)


def test_numbers_are_read_as_numbers_or_digits() -> None:
    assert partition_id(node(partition_id=7)) == 7
    assert partition_id(node(partition_id=" 7 ")) == 7


def test_a_job_for_another_device_is_refused() -> None:
    content = messages.write_job(job(partition_id=3), messages.pack({}), RunAddress("/nowhere", "x"))
    with pytest.raises(RunError, match="a job for device 3 reached device 2"):
        train(message(content), node(partition_id=2))


def test_what_is_no_job_is_named() -> None:
    with pytest.raises(FedAsiError, match="what the server sent is not a job: it lacks 'job'"):
        train(message(RecordDict({"x": ConfigRecord({})})), node(partition_id=2))
