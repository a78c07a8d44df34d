"""What Flower carries: unchanged to the bit both ways, and refused by name if it is not what it claims to be."""

from __future__ import annotations

import io
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st

import hostile
from fed_asi.devices.reply import Reply, payload_bytes
from fed_asi.errors import FedAsiError, UpdateError
from fed_asi.flower import messages
from fed_asi.flower.messages import (
    pack,
    parcel_of,
    read_job,
    read_reply,
    read_who,
    unpack,
    write_job,
    write_reply,
)
from fed_asi.workplace.address import RunAddress
from runs import job

ROOM = 1 << 20
RUN = RunAddress("/runs/x", "abc")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 2, 5, dtype=torch.float32),
        torch.randn(4, 3).T,
        torch.tensor(float("nan")),
        torch.zeros(0, 3),
        torch.tensor([-0.0, math.inf], dtype=torch.float64),
        torch.tensor([True, False]),
        torch.arange(7, dtype=torch.int16),
        torch.randn(2, dtype=torch.complex64),
        torch.ones(1, 1, 1, 1, 1, 1, dtype=torch.float16),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tuple(tensor.shape)}",
)
def test_a_tensor_is_carried_to_the_bit(tensor: torch.Tensor) -> None:
    packed = pack({"t": tensor})
    assert packed["t"] == Array(tensor.contiguous().numpy())  # as Flower packs it
    (back,) = unpack(packed).values()
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert back.contiguous().numpy().tobytes() == tensor.contiguous().numpy().tobytes()
    back.zero_()  # a copy of its own


def test_an_array_in_fortrans_order_is_read_as_numpy_reads_it() -> None:
    array = np.asfortranarray(np.arange(12, dtype="float32").reshape(3, 4))
    assert torch.equal(unpack(ArrayRecord({"t": Array(array)}))["t"], torch.from_numpy(np.array(array)))


def test_a_job_and_a_reply_survive_the_wire() -> None:
    tensors = {"conv.weight": torch.randn(4, 3), "conv.bias": torch.randn(4)}
    asked, got, run = read_job(write_job(job(budget_bytes=9), pack(tensors), RUN))
    assert (asked, run) == (job(budget_bytes=9), RUN)
    assert all(torch.equal(got[name], tensors[name]) for name in tensors)
    sent = Reply(2, {"outcome": "trained", "num_examples": 3}, tensors, tuple(tensors), host_seconds=1.5)
    back = read_reply(asked, write_reply(sent), ROOM)
    assert (back.stats, back.trained, back.host_seconds) == (sent.stats, sent.trained, 1.5)
    assert back.bytes_up == payload_bytes(tensors, sent.to_json())


def test_a_job_may_say_where_its_tensors_are() -> None:
    run = replace(RUN, depot="the depot")
    boxed = write_job(job(), "parcel-7", run)
    assert read_job(boxed) == (job(), {}, run)
    assert parcel_of(boxed) == "parcel-7"
    assert parcel_of(write_job(job(), pack({}), RUN)) is None


def test_bytes_reported_are_those_on_the_wire() -> None:
    tensors = {"conv.weight": torch.randn(64, 32, 3, 3), "conv.bias": torch.randn(64)}
    asked = job()
    down = len(recorddict_to_proto(write_job(asked, pack(tensors), RUN)).SerializeToString())
    assert payload_bytes(tensors, asked.to_json()) <= down
    assert down <= 1.02 * payload_bytes(tensors, asked.to_json()) + 512
    sent = Reply(1, {"outcome": "trained", "num_examples": 3}, tensors, tuple(tensors), host_seconds=1.5)
    content = write_reply(sent)
    got = read_reply(asked, content, ROOM)
    up = len(recorddict_to_proto(content).SerializeToString())
    assert got.bytes_up is not None
    assert got.bytes_up <= up <= 1.02 * got.bytes_up + 512


def test_everything_survives_flowers_own_wire() -> None:
    """Deployed, messages go through protobuf, which has its own words for numbers and texts."""
    sent = Reply(
        2, {"outcome": "trained", "num_examples": 3}, {"a": torch.randn(2, 3)}, ("a",), host_seconds=2.0
    )
    through = [
        recorddict_from_proto(recorddict_to_proto(content))
        for content in (
            write_reply(sent),
            messages.write_who(3, "host", 4096),
            write_job(job(), pack(sent.tensors), RUN),
        )
    ]
    back = read_reply(job(), through[0], ROOM)
    assert (back.stats, back.host_seconds) == (sent.stats, 2.0)
    assert torch.equal(back.tensors["a"], sent.tensors["a"])
    assert read_who(through[1]).budget == 4096
    assert read_job(through[2])[0] == job()


def raw(header: str, data: bytes = b"\0" * 8, stype: str = "numpy.ndarray") -> Array:
    """Return an array whose header says what is given."""
    text = (header + " " * (117 - len(header)) + "\n").encode("latin1")
    return Array("float32", (2,), stype, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data)


LIES = {
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }": "says it has shape (3,) of <f4, and has 8 B",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }": "and has 8 B",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (), }x": "is not an array as numpy writes it",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }": "is of type |O, which no tensor has",
    "{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }": "is of type <u2, which no tensor has",
    "{'descr': '>f8', 'fortran_order': False, 'shape': (1,), }": "is of type >f8, which no tensor has",
    "{'descr': '<U2', 'fortran_order': False, 'shape': (1,), }": "is of type <U2, which no tensor has",
    "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,), }": "is not an array as numpy writes it",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }": "is not an array as numpy writes it",
    "__import__('os').system('true')": "is not an array as numpy writes it",
}


@pytest.mark.parametrize("header", LIES)
def test_a_header_that_lies_is_named_before_memory_is_taken(header: str) -> None:
    with pytest.raises(UpdateError) as caught:
        unpack(ArrayRecord({"conv.weight": raw(header)}))
    assert str(caught.value).startswith("conv.weight ")
    assert str(caught.value).endswith(LIES[header])


def test_empty_arrays_of_absurd_shape_are_named() -> None:
    with pytest.raises(UpdateError, match=r"conv has shape \(0, 9{18}\)"):
        unpack(
            ArrayRecord(
                {"conv": raw(f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {'9' * 18}), }}", b"")}
            )
        )
    with pytest.raises(UpdateError, match="not an array as numpy writes it"):
        unpack(
            ArrayRecord(
                {"conv": raw("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", stype="pickle")}
            )
        )


def test_a_message_too_large_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_record: ArrayRecord) -> Any:
        raise AssertionError("unpacked")

    monkeypatch.setattr(messages, "unpack", never)
    good = write_reply(Reply(2, {"outcome": "trained"}, {"a": torch.zeros(1 << 10)}))
    for more in (
        {"more": ConfigRecord({"text": "x" * ROOM})},
        {"more": ConfigRecord({"list": [b"x" * 600] * 2000})},
        {"more": MetricRecord({"list": [1.0] * (ROOM // 8)})},
        {"x" * ROOM: MetricRecord()},
        {"more": ArrayRecord({"": Array("float32", (1,), "any", b"x" * ROOM)})},
    ):
        with pytest.raises(UpdateError, match=r"^a message of 1\.\d MiB, and a reply may have 1\.0 MiB$"):
            read_reply(job(), RecordDict({**dict(good.items()), **more}), ROOM)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 2e9, [1.0]])
def test_seconds_are_a_number_that_can_be(seconds: Any) -> None:
    content = write_reply(Reply(2, {"outcome": "trained"}))
    content["times"] = MetricRecord({"host_seconds": seconds})
    with pytest.raises(UpdateError, match="host_seconds is not a number of seconds"):
        read_reply(job(), content, ROOM)


GOOD = write_reply(
    Reply(2, {"outcome": "trained", "num_examples": 3}, {"a": torch.zeros(2, 2)}, ("a",), host_seconds=0.5)
)


@given(hostile.contents(GOOD))
def test_any_message_is_a_reply_or_a_reason(content: RecordDict) -> None:
    started, why = time.monotonic(), ""
    try:
        read_reply(job(), content, ROOM)
    except UpdateError as error:
        why = str(error)
    assert why.isprintable()
    assert time.monotonic() - started < 2.0


def test_what_is_no_job_is_one_line() -> None:
    tensors = pack({"a": torch.zeros(1)})
    for content in (
        RecordDict(),
        RecordDict({"job": ConfigRecord({"job": "{}"}), "tensors": tensors}),
        RecordDict({"job": ConfigRecord({"job": "{", "folder": "", "fingerprint": ""}), "tensors": tensors}),
    ):
        with pytest.raises(FedAsiError, match=r"^(what the server sent is not a job: |the server speaks)"):
            read_job(content)


def test_who_a_node_is_survives_the_wire() -> None:
    who = read_who(messages.write_who(3, "host", 4096))
    assert (who.partition_id, who.host, who.budget) == (3, "host", 4096)
    assert read_who(messages.write_who(0, "half \ud800", None)) == read_who(
        messages.write_who(0, "half  ", None)
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"partition-id": "3"}, "partition-id: Input should be a valid integer"),
        ({"partition-id": -1}, "partition-id: Input should be greater than or equal to 0"),
        ({"partition-id": 10**30}, "partition-id: Input should be less than"),
        ({"partition-id": [1, 2]}, "partition-id: Input should be a valid integer"),
        ({"budget": 1.5}, "budget: Input should be a valid integer"),
        ({"host": b"x"}, "host: Input should be a valid string"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"version": 2}, "it is of another version than 1: use the same fed_asi on both sides"),
        ({"host": "x" * 70_000}, "a message of 68.4 KiB, and a reply may have 64.0 KiB"),
    ],
)
def test_an_answer_that_does_not_say_who_is_a_reason(changes: dict[str, Any], why: str) -> None:
    known = dict(messages.write_who(3, "host", None).config_records["who"])
    with pytest.raises(UpdateError) as caught:
        read_who(RecordDict({"who": ConfigRecord({**known, **changes})}))
    assert str(caught.value).startswith(why)


@given(st.dictionaries(st.sampled_from(["version", "partition-id", "host"]), hostile.VALUES))
def test_any_answer_is_somebody_or_a_reason(known: dict[str, Any]) -> None:
    why = ""
    try:
        read_who(RecordDict({"who": ConfigRecord(known)}))
    except UpdateError as error:
        why = str(error)
    assert why.isprintable()
    with pytest.raises(UpdateError, match="it does not say which device it is"):
        read_who(RecordDict())


def test_numpy_still_writes_headers_as_they_are_read_here() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 3), dtype="float32"))
    assert b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" in buffer.getvalue()
