"""Jobs, replies and introductions as Flower carries them: named tensors and one small JSON.

What a device sends is checked before anything is made of it: the size of the whole message against the most that such a
reply may have, and the numpy header of each array, so that none can claim more than its bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from pydantic import Field, ValidationError
from torch import Tensor

from fed_asi.devices import edge
from fed_asi.devices.edge import Count, Form, Text
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, payload_bytes
from fed_asi.errors import RunError, UpdateError
from fed_asi.flower.carried import Carried
from fed_asi.units import format_bytes
from fed_asi.workplace.address import RunAddress

WHO_BYTES = 1 << 16  # of an introduction


LONGEST_SECONDS = 1e9  # of a device's work


# As numpy.save writes the header of a plain array (format 1.0), and nothing else: evaluated it could be anything.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([^']{2,8})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18},? ?){0,16})\), \} *\n",
    re.DOTALL,
)


_DTYPES = {
    "<f2",
    "<f4",
    "<f8",
    "|b1",
    "|i1",
    "|u1",
    "<i2",
    "<i4",
    "<i8",
    "<c8",
    "<c16",
}  # that torch holds too


def pack(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return named tensors as Flower carries them; packed once, the jobs of a round share them."""
    return ArrayRecord({name: _array(tensor) for name, tensor in tensors.items()})


def _array(tensor: Tensor) -> Array:
    """Return a tensor as Flower makes an array of it, with fewer copies."""
    array, head = tensor.detach().contiguous().numpy(), io.BytesIO()
    write_array_header_1_0(head, header_data_from_array_1_0(array))
    data = Carried(b"".join((head.getvalue(), array.data)))
    return Array(str(array.dtype), tuple(array.shape), "numpy.ndarray", data)


def unpack(record: ArrayRecord) -> dict[str, Tensor]:
    """Return the named tensors of a record, copied. Raises UpdateError for anything that is not a tensor."""
    return {name: _tensor(name, array) for name, array in record.items()}


def _tensor(name: str, array: Array) -> Tensor:
    """Return an array from the wire as a tensor, if its header matches its bytes."""
    name = edge.readable(name)
    data = array.data
    found = _HEADER.match(data) if isinstance(data, bytes) and array.stype == "numpy.ndarray" else None
    if found is None:
        raise UpdateError(f"{name} is not an array as numpy writes it")
    kind, fortran, shape = found[2].decode(errors="replace"), found[3] == b"True", _shape(found[4])
    if kind not in _DTYPES:
        raise UpdateError(f"{name} is of type {edge.readable(kind)}, which no tensor has")
    dtype, size = np.dtype(kind), len(data) - found.end()
    if math.prod(shape) * dtype.itemsize != size:
        raise UpdateError(f"{name} says it has shape {shape} of {kind}, and has {format_bytes(size)}")
    if math.prod(shape) == 0 and max(shape) > 1 << 31:
        raise UpdateError(f"{name} has shape {shape}")  # no memory, and still beyond what numpy takes
    values = np.frombuffer(data, dtype, offset=found.end()).reshape(shape, order="F" if fortran else "C")
    return torch.from_numpy(np.array(values))


def _shape(text: bytes) -> tuple[int, ...]:
    return tuple(int(size) for size in re.findall(rb"\d+", text))


def write_job(job: Job, tensors: ArrayRecord | str, run: RunAddress) -> RecordDict:
    """Return the content of a job's message. tensors: what `pack` gave, or their key in the run's depot."""
    config = ConfigRecord({"job": job.to_json(), "folder": run.folder, "fingerprint": run.fingerprint})
    if run.depot:
        config["depot"] = run.depot
    if isinstance(tensors, str):
        config["parcel"] = tensors
        return RecordDict({"job": config})
    return RecordDict({"tensors": tensors, "job": config})


def read_job(content: RecordDict) -> tuple[Job, dict[str, Tensor], RunAddress]:
    """Return the job, the global tensors and the run in a message from the server.

    There are no tensors if `parcel_of` says where they are. Raises FedAsiError for a job of another version, and for
    anything else.
    """
    try:
        config = content.config_records["job"]
        run = RunAddress(str(config["folder"]), str(config["fingerprint"]), str(config.get("depot", "")))
        tensors = {} if "parcel" in config else unpack(content.array_records["tensors"])
        return Job.from_json(str(config["job"])), tensors, run
    except KeyError as error:
        raise RunError(f"what the server sent is not a job: it lacks {error}") from None


def parcel_of(content: RecordDict) -> str | None:
    """Return the key of a job's tensors in the run's depot; None: they are in its message."""
    key = content.config_records["job"].get("parcel")
    return None if key is None else str(key)


def write_reply(reply: Reply) -> RecordDict:
    """Return the message of a reply; seconds are kept apart, so that the rest is the same from run to run."""
    return RecordDict(
        {
            "tensors": pack(reply.tensors),
            "reply": ConfigRecord({"reply": reply.to_json()}),
            "times": MetricRecord({"host_seconds": float(reply.host_seconds or 0.0)}),
        }
    )


def read_reply(job: Job, content: RecordDict, limit_bytes: int) -> Reply:
    """Return the reply that a device sent to a job, with its size in bytes.

    limit_bytes: the most that the message may have. Raises UpdateError for a larger one, before any of it is unpacked,
    and for one that is not such a reply.
    """
    within(content, limit_bytes)
    try:
        text = content.config_records["reply"]["reply"]
        seconds = content.metric_records["times"]["host_seconds"]
        tensors = unpack(content.array_records["tensors"])
    except KeyError as error:
        raise UpdateError(f"it lacks {edge.readable(str(error))}") from None
    if not isinstance(seconds, (int, float)) or not 0.0 <= seconds <= LONGEST_SECONDS:
        raise UpdateError(f"host_seconds is not a number of seconds from 0 to {LONGEST_SECONDS:g}")
    reply = Reply.parse(job, text, tensors)
    up = payload_bytes(tensors, str(text))
    return replace(reply, host_seconds=float(seconds), bytes_up=up)


class Who(Form):
    """What a node says of itself. budget: the device's own, in bytes, if it was given one."""

    version: Annotated[int, Field(ge=edge.VERSION, le=edge.VERSION)]
    partition_id: Annotated[Count, Field(alias="partition-id")]
    host: Text
    budget: Count | None = None


def write_who(partition_id: int, host: str, budget: int | None) -> RecordDict:
    """Return a device's answer to the question who it is."""
    known: dict[str, str | int] = {"version": edge.VERSION, "partition-id": partition_id, "host": host}
    return RecordDict({"who": ConfigRecord({**known, **({} if budget is None else {"budget": budget})})})


def read_who(content: RecordDict) -> Who:
    """Return what a node says of itself. Raises UpdateError for any other answer."""
    within(content, WHO_BYTES)
    if "who" not in content.config_records:
        raise UpdateError("it does not say which device it is")
    try:
        return Who.model_validate(dict(content.config_records["who"]))
    except ValidationError as error:
        raise UpdateError(edge.reason(error)) from None


def within(content: RecordDict, limit_bytes: int) -> None:
    """Raise UpdateError, with both sizes, if a message is larger than it may be."""
    size = sum(len(name) + _record_bytes(record) for name, record in content.items())
    if size > limit_bytes:
        raise UpdateError(
            f"a message of {format_bytes(size)}, and a reply may have {format_bytes(limit_bytes)}"
        )


def _record_bytes(record: ArrayRecord | ConfigRecord | MetricRecord) -> int:
    if isinstance(record, ArrayRecord):
        return sum(len(name) + _value_bytes(array.data) for name, array in record.items())
    return sum(len(name) + _value_bytes(value) for name, value in record.items())


def _value_bytes(value: object) -> int:
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, list):
        return sum(_value_bytes(one) for one in value)
    return 8
