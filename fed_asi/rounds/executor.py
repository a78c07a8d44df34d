"""Who gets jobs to devices: the protocol, and the plain loop in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from fed_asi.devices import warm_factors
from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, answer, payload_bytes
from fed_asi.machine import threads
from fed_asi.workplace.place import Workplace


class Executor(Protocol):
    """Gets jobs to devices. It answers for every job: a device that is lost is a Reply with its outcome."""

    @property
    def parallel(self) -> int | None:
        """Devices at work at once; None: all that are asked."""

    def train(self, jobs: Sequence[Job], tensors: Mapping[str, Tensor]) -> Iterable[Reply]:
        """Yield one reply a job, in whatever order they come. jobs: begun in this order. tensors: the global ones."""


class LoopExecutor:
    """Trains the devices one after another in this process, without Flower and Ray."""

    parallel = 1

    def __init__(self, place: Workplace, states: Path) -> None:
        self._place = place
        self._states = states

    def train(self, jobs: Sequence[Job], tensors: Mapping[str, Tensor]) -> Iterator[Reply]:
        """Yield each device's reply in the order of `jobs`; a device that raises is "failed"."""
        for job in jobs:
            factors = warm_factors.load_factors(self._states, job.partition_id, job.factors_round)
            with threads(self._place.config.compute.threads):  # not beyond a yield: the caller has his own
                reply, kept = answer(self._place, job, tensors, factors)
            if kept:
                warm_factors.save_factors(self._states, job.partition_id, job.round, job.factors_round, kept)
            down = payload_bytes(tensors, job.to_json())
            yield replace(reply, bytes_up=payload_bytes(reply.tensors, reply.to_json()), bytes_down=down)
