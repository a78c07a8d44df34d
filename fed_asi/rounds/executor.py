"""The interface to whatever brings jobs to devices, and its implementation in this process: the plain loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, do_job, failure, payload_bytes
from fed_asi.devices.warm_factors import OnDisk
from fed_asi.errors import UpdateError
from fed_asi.machine import threads
from fed_asi.workplace.place import Workplace


class Executor(Protocol):
    """Brings jobs to devices. Every job gets a Reply: for a device that is lost, one with its outcome."""

    @property
    def parallel(self) -> int | None:
        """Devices at work at once; None: all that are asked."""

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: Mapping[str, int] | None = None
    ) -> Iterable[Reply]:
        """Yield one reply a job, in whatever order they come.

        jobs: begun in this order. tensors: the global ones. sizes: of every tensor a reply may carry, in bytes, by
        name; None: those of `tensors`. What is larger need not be read.
        """


class LoopExecutor:
    """Trains the devices one after another in this process, without Flower and Ray."""

    parallel = 1

    def __init__(self, place: Workplace, states: Path) -> None:
        self._place = place
        self._states = states

    def train(
        self,
        jobs: Sequence[Job],
        tensors: Mapping[str, Tensor],
        sizes: Mapping[str, int] | None = None,  # noqa: ARG002 - what is here already is not refused for its size
    ) -> Iterator[Reply]:
        """Yield each device's reply in the order of `jobs`; a device that raises is "failed".

        What it says is parsed as if it came from afar, so that the records are those of any other executor.
        """
        for job in jobs:
            with threads(self._place.config.compute.threads):  # not beyond a yield: the caller has his own
                said = do_job(self._place, job, tensors, OnDisk(self._states))
            text = said.to_json()
            try:
                reply = Reply.parse(job, text, said.tensors)
            except UpdateError as error:
                reply = failure(job.partition_id, "rejected", f"not a reply: {error}")
            up, down = payload_bytes(said.tensors, text), payload_bytes(tensors, job.to_json())
            yield replace(reply, host_seconds=said.host_seconds, bytes_up=up, bytes_down=down)


def one_reply_a_job(
    replies: Iterable[Reply], jobs: Sequence[Job], note: Callable[[str], None]
) -> Iterator[Reply]:
    """Yield exactly one reply a job, whatever an executor yields: the first; a device without one has "failed".

    note: gets a line on each reply to a job that was not asked for.
    """
    asked = {job.partition_id for job in jobs}
    waiting = set(asked)
    for reply in replies:
        if reply.partition_id in waiting:
            waiting.discard(reply.partition_id)
            yield reply
        else:
            why = "it has answered already" if reply.partition_id in asked else "it was not asked"
            note(f"a reply of device {reply.partition_id} is ignored: {why}")
    for partition_id in sorted(waiting):
        yield failure(partition_id, "failed", "no reply came back")
