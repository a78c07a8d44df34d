"""What a device answers to a job, in the form both back ends carry: tensors and one small JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fed_asi.devices.calibration import sums_for
from fed_asi.devices.job import Job
from fed_asi.devices.warm_factors import WarmFactors
from fed_asi.devices.work import train_locally
from fed_asi.workplace.place import Workplace


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one job. stats: columns of device_rounds, "outcome" among them.

    trained: names of the tensors the device says it trained. weights: the share of the gradient captured, by
    tensor. The bytes are those of the messages' content, without framing; None where nothing was carried.
    """

    partition_id: int
    stats: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    trained: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    host_seconds: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None

    def to_json(self) -> str:
        """Return all but the tensors and what differs from run to run (seconds, bytes) as JSON."""
        content = {"stats": self.stats, "trained": self.trained, "weights": self.weights, "notes": self.notes}
        return json.dumps(content, separators=(",", ":"))

    @classmethod
    def from_json(cls, partition_id: int, text: str, tensors: dict[str, Tensor]) -> Reply:
        """Return the reply of a device that sent this JSON and these tensors."""
        content = json.loads(text)
        return cls(
            partition_id,
            content["stats"],
            tensors,
            tuple(content["trained"]),
            content["weights"],
            tuple(content["notes"]),
        )


def payload_bytes(tensors: Mapping[str, Tensor], text: str) -> int:
    """Return what a message must carry: the tensors' bytes and its JSON's, without any framing."""
    return sum(tensor.nbytes for tensor in tensors.values()) + len(text.encode())


def answer(
    place: Workplace, job: Job, tensors: Mapping[str, Tensor], factors: WarmFactors | None
) -> tuple[Reply, WarmFactors]:
    """Return a device's reply to a job, and the warm factors it keeps.

    A device that raises is "failed" with the error's text, also where it means to end its process: a Ray
    worker that exits by itself is never replaced. KeyboardInterrupt passes.
    """
    try:
        if job.phase != "train":
            sums = sums_for(place, job.partition_id, job.phase, tensors)
            return Reply(job.partition_id, {"outcome": "calibrated"}, sums, tuple(sorted(sums))), {}
        result = train_locally(place, job, tensors, factors)
    except (Exception, SystemExit) as error:  # one device's failure, whatever it is, is that device's alone
        return failure(job.partition_id, "failed", f"{type(error).__name__}: {first_line(error)}"), {}
    reply = Reply(
        job.partition_id,
        result.stats,
        result.tensors,
        tuple(sorted(result.tensors)),
        result.weights,
        result.notes,
        result.host_seconds,
    )
    return reply, result.factors


def failure(partition_id: int, outcome: str, cause: str) -> Reply:
    """Return the reply that stands for a device from which no update came."""
    return Reply(partition_id, {"outcome": outcome, "cause": cause})


def first_line(error: BaseException) -> str:
    """Return an error's first line, or its type's name where it has no text."""
    return (str(error).splitlines() or [type(error).__name__])[0]
