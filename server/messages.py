"""The server's side of the messages: jobs out, replies in (clients/messages.py is the device's)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fed_asi.local import Job
from fed_asi.replies import Reply, payload_bytes
from fed_asi.workplace import RunAddress


def pack(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return named tensors as Flower carries them; packed once, the jobs of a round share them."""
    return ArrayRecord(
        {name: Array(tensor.detach().contiguous().numpy()) for name, tensor in tensors.items()}
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
