"""Shared by the tests of several services: a message as a SuperNode passes it on."""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Flower's own imports warn
    from flwr.app import ConfigRecord, Message, RecordDict

    from deploy.flwr_private import TaskIdentity


@pytest.fixture
def message(monkeypatch: pytest.MonkeyPatch) -> Message:
    """A message of type "train" from task 1 of run 1."""
    for part in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, part, 1)
    return Message(RecordDict({"x": ConfigRecord({"n": 1})}), dst_node_id=1, message_type="train")
