"""A device's reply to a job, in the form that both back ends carry: tensors and one small JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from fed_asi.devices import edge
from fed_asi.devices.calibration import sums_for
from fed_asi.devices.edge import CalibrationSaid, Said, TrainSaid
from fed_asi.devices.exchange import Exchange
from fed_asi.devices.job import Job
from fed_asi.devices.parts import received
from fed_asi.devices.twin import with_twin
from fed_asi.devices.warm_factors import WarmFactors
from fed_asi.devices.work import train_locally
from fed_asi.errors import RunError, first_line
from fed_asi.gpus import exact
from fed_asi.layers.slices import Slice
from fed_asi.workplace.place import Workplace

MARGIN_BYTES, TENSOR_BYTES = (
    1 << 20,
    1 << 10,
)  # bytes of a message besides its numbers: for its JSON, and for each tensor


FRESH = "started from fresh factors"  # in the note of a device that has lost its own


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for one job. stats: columns of device_rounds, "outcome" among them.

    trained: names of the tensors that the device claims to have trained. weights: the share of the gradient captured,
    by tensor. slices: for tensors trained in part, which part. Byte counts are those of the messages' content, without
    framing; None where no message was sent.
    """

    partition_id: int
    stats: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    trained: tuple[str, ...] = ()
    weights: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    slices: dict[str, Slice] = field(default_factory=dict)
    host_seconds: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None

    @property
    def outcome(self) -> str:
        """How the job ended, in one word."""
        return str(self.stats["outcome"])

    @property
    def cause(self) -> str | None:
        """Why it ended so; None if all went as asked."""
        return self.stats.get("cause")

    def to_json(self) -> str:
        """Return the reply as versioned JSON, without tensors and what differs from run to run (seconds, bytes).

        A number that is not finite becomes null, as neither JSON nor the records can hold it.
        """
        content = {"stats": self.stats, "trained": self.trained, "weights": self.weights, "notes": self.notes}
        if self.slices:
            content["slices"] = {name: _said(part) for name, part in self.slices.items()}
        return json.dumps(
            _finite({"version": edge.VERSION, **content}), separators=(",", ":"), allow_nan=False
        )

    @classmethod
    def parse(cls, job: Job, text: object, tensors: dict[str, Tensor]) -> Reply:
        """Return the reply made of the JSON and tensors that a device sent for a job.

        Raises UpdateError with the reason where the JSON is not a reply to such a job.
        """
        said: Said = edge.parsed(TrainSaid if job.phase == "train" else CalibrationSaid, text)
        stats = said.stats.model_dump(exclude_unset=True)
        slices = {}
        if isinstance(said, TrainSaid):
            slices = {name: Slice(one.dim, torch.tensor(one.index)) for name, one in said.slices.items()}
        return cls(job.partition_id, stats, tensors, said.trained, said.weights, said.notes, slices)


def _said(part: Slice) -> dict[str, Any]:
    return {"dim": part.dim, "index": part.index.tolist()}


def _finite(value: Any) -> Any:
    """Return JSON values with null for every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def payload_bytes(tensors: Mapping[str, Tensor], text: str) -> int:
    """Return the bytes that a message must carry: those of tensors and JSON, without framing."""
    return sum(tensor.nbytes for tensor in tensors.values()) + len(text.encode())


def limit_bytes(sizes: Mapping[str, int]) -> int:
    """Return the most bytes that a reply may have. sizes: bytes of every tensor it may carry, by name."""
    return sum(sizes.values()) + TENSOR_BYTES * len(sizes) + MARGIN_BYTES


class State(Protocol):
    """Where a device keeps its warm factors from round to round."""

    def factors(self, job: Job) -> WarmFactors | None:
        """Return the factors that the job starts from; None if there are none. Raises RunError for unreadable ones."""

    def keep(self, job: Job, factors: WarmFactors) -> None:
        """Keep the factors after the job. Raises RunError where they cannot be."""


def do_job(place: Workplace, job: Job, tensors: Mapping[str, Tensor], state: State) -> Reply:
    """Return a device's reply to a job; its warm factors are read from and written to its state.

    If factors cannot be read or kept, a note says so, the device starts afresh, and the run goes on.
    """
    notes = []
    try:
        factors = state.factors(job)
    except RunError as error:
        factors = None
        follows = Exchange.of(place.config).when_lost
        notes.append(f"device {job.partition_id} {FRESH}: {error}" + (f"; {follows}" if follows else ""))
    reply, kept = answer(place, job, tensors, factors)
    try:
        state.keep(job, kept)
    except RunError as error:
        notes.append(f"device {job.partition_id} could not keep its warm factors: {error}")
        reply = replace(
            reply, stats={**reply.stats, "factors_bytes": 0, "kept_bytes": 0}
        )  # its next round starts afresh
    return replace(reply, notes=(*reply.notes, *notes))


def answer(
    place: Workplace, job: Job, tensors: Mapping[str, Tensor], factors: WarmFactors | None
) -> tuple[Reply, WarmFactors]:
    """Return a device's reply to a job, and the warm factors that it keeps.

    A device that raises is "failed" with the text of the error, also if its code tries to exit: a Ray worker that
    exits by itself is never replaced. KeyboardInterrupt passes.
    """
    try:
        if job.phase != "train":
            with exact(place.device):  # the trunk computes there if features are off
                sums = sums_for(place, job.partition_id, job.phase, tensors)
            return Reply(job.partition_id, {"outcome": "calibrated"}, sums, tuple(sorted(sums))), {}
        tensors = received(tensors, place.reference)
        with exact(place.device):
            result = train_locally(place, job, tensors, factors)
            if job.twin is not None:
                result = with_twin(place, job, tensors, factors, result)
        reply = Reply(
            job.partition_id,
            result.stats,
            result.sent,
            tuple(sorted(result.tensors)),
            result.weights,
            result.notes,
            dict(result.slices),
            result.host_seconds,
        )
        reply.to_json()  # a reply that cannot be encoded fails this device, not whoever sends it
    except (Exception, SystemExit) as error:  # whatever it is, it must fail this device only
        return failure(job.partition_id, "failed", f"{type(error).__name__}: {first_line(error)}"), {}
    return reply, result.factors


def failure(partition_id: int, outcome: str, cause: str) -> Reply:
    """Return the reply that stands in for a device from which no update came."""
    return Reply(partition_id, {"outcome": outcome, "cause": edge.readable(cause)})
