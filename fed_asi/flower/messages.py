"""The messages between server and devices: jobs out, replies in; trained tensors and one small JSON, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, payload_bytes
from fed_asi.workplace.address import RunAddress


def pack(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return named tensors as Flower carries them; packed once, the jobs of a round share them."""
    return ArrayRecord(
        {name: Array(tensor.detach().contiguous().numpy()) for name, tensor in tensors.items()}
    )


def unpack(record: ArrayRecord) -> dict[str, Tensor]:
    """Return the named tensors of a record, as copies of their own."""
    return {name: torch.from_numpy(np.array(array.numpy())) for name, array in record.items()}


def read_job(content: RecordDict) -> tuple[Job, dict[str, Tensor], RunAddress]:
    """Return the job, the global tensors and the run that a message of the server's carries."""
    config = content.config_records["job"]
    run = RunAddress(str(config["folder"]), str(config["fingerprint"]))
    return Job.from_json(str(config["job"])), unpack(content.array_records["tensors"]), run


def write_reply(reply: Reply) -> RecordDict:
    """Return a reply's message; seconds go apart, so that the rest is the same from run to run."""
    return RecordDict(
        {
            "tensors": pack(reply.tensors),
            "reply": ConfigRecord({"reply": reply.to_json()}),
            "times": MetricRecord({"host_seconds": float(reply.host_seconds or 0.0)}),
        }
    )


def write_job(job: Job, tensors: ArrayRecord, run: RunAddress) -> RecordDict:
    """Return the content of a job's message. tensors: what `pack` gave."""
    config = ConfigRecord({"job": job.to_json(), "folder": run.folder, "fingerprint": run.fingerprint})
    return RecordDict({"tensors": tensors, "job": config})


def read_reply(partition_id: int, content: RecordDict) -> Reply:
    """Return the reply a device sent, with the bytes it carried.

    Raises KeyError, ValueError or TypeError for a message that is none.
    """
    record = content.array_records["tensors"]
    tensors = {name: torch.from_numpy(np.array(array.numpy())) for name, array in record.items()}
    text = str(content.config_records["reply"]["reply"])
    seconds = content.metric_records["times"]["host_seconds"]
    reply = Reply.from_json(partition_id, text, tensors)
    up = payload_bytes(tensors, text)
    return replace(reply, host_seconds=float(np.asarray(seconds).item()), bytes_up=up)
