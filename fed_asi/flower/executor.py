"""The round loop's executor on Flower: jobs go out as messages, and every one of them is answered for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, failure, first_line, payload_bytes
from fed_asi.errors import RunError
from fed_asi.flower import messages
from fed_asi.flower.failures import NO_NODE, is_gone, meaning
from fed_asi.flower.worker import begun_file
from fed_asi.workplace.address import RunAddress

POLL_SECONDS = 0.01


TRIES, RESTART_SECONDS = 40, 0.5


GRACE_SECONDS = 30.0  # a worker ends a hanging device itself; what it could not, we give up on


START_SECONDS = 300.0  # on a busy machine, of Ray and a worker's first imports, before a first reply can come


class Interrupted(Exception):  # noqa: N818 - not an error: the user asked for it
    """The run was asked to stop."""


@dataclass(slots=True)
class Waiting:
    """How the executor waits. parallel: devices at work at once; None: all of them."""

    stop: Callable[[], bool]
    parallel: int | None = None
    nodes_seconds: float = 300.0
    poll_seconds: float = POLL_SECONDS


@dataclass(slots=True)
class _Flight:
    """The jobs of a round that are out: by message id, and how often each was sent again."""

    jobs_of: dict[str, Job]
    tries: dict[int, int]


class FlowerExecutor:
    """Sends jobs through a Flower grid. nodes_of: partition id -> node id of the devices that are there.

    expected: devices of the fleet. states: where this machine's workers leave word of a hanging device.
    """

    def __init__(
        self, grid: Grid, expected: int, run: RunAddress, waiting: Waiting, states: Path | None = None
    ) -> None:
        self._grid, self._expected, self._run = grid, expected, run
        self._waiting, self._states = waiting, states
        self._asked: set[int] = set()
        self.nodes_of: dict[int, int] = {}

    @property
    def parallel(self) -> int | None:
        """Devices at work at once; None: all that are asked."""
        return self._waiting.parallel

    def find_devices(self) -> None:
        """Wait until every device is there, or time is up, and ask each who it is.

        Raises RunError where none came, or two say they are the same device.
        """
        until = time.monotonic() + self._waiting.nodes_seconds
        while len(self._node_ids()) < self._expected and time.monotonic() < until:
            self._pause()
        self._ask_new_nodes()
        if not self.nodes_of:
            raise RunError(f"no device came within {self._waiting.nodes_seconds:.0f} s")

    def train(self, jobs: Sequence[Job], tensors: Mapping[str, Tensor]) -> Iterator[Reply]:
        """Yield one reply a job as they come; a device that is not there or does not answer is named."""
        self._ask_new_nodes()
        packed = messages.pack(tensors)
        flight = _Flight({}, {})
        for job in jobs:
            if not self._send(job, packed, flight):
                yield failure(job.partition_id, "failed", NO_NODE)
        for reply, job in self._replies(flight, packed):
            yield replace(reply, bytes_down=payload_bytes(tensors, job.to_json()))

    def _send(self, job: Job, packed: ArrayRecord, flight: _Flight) -> bool:
        """Send one job; return whether its device is there."""
        node = self.nodes_of.get(job.partition_id)
        if node is None:
            return False
        if self._states is not None:
            begun_file(self._states, job).unlink(missing_ok=True)
        message = Message(messages.write_job(job, packed, self._run), node, "train")
        (message_id,) = list(self._grid.push_messages([message])) or ("",)
        if message_id:
            flight.jobs_of[message_id] = job
        return bool(message_id)

    def _replies(self, flight: _Flight, packed: ArrayRecord) -> Iterator[tuple[Reply, Job]]:
        jobs_of = flight.jobs_of
        until = time.monotonic() + self._round_seconds(list(jobs_of.values()))
        while jobs_of and time.monotonic() < until:
            for message in self._grid.pull_messages(list(jobs_of)):
                job = jobs_of.pop(message.metadata.reply_to_message_id, None)
                if job is None or self._sent_again(message, job, packed, flight):
                    continue
                yield self._read(message, job), job
            if jobs_of:
                self._pause()
        for job in jobs_of.values():
            yield failure(job.partition_id, "timeout", "no reply before the round's deadline"), job

    def _sent_again(self, message: Message, job: Job, packed: ArrayRecord, flight: _Flight) -> bool:
        """Send a job again whose worker process was gone before it came to it; return whether it was sent.

        Ray starts a worker anew within seconds, and until then refuses what is sent to it.
        """
        if self._states is None or not message.has_error() or begun_file(self._states, job).exists():
            return False
        tries = flight.tries.get(job.partition_id, 0)
        if not is_gone(message.error.reason or "") or tries >= TRIES:
            return False
        flight.tries[job.partition_id] = tries + 1
        self._pause(RESTART_SECONDS)
        return self._send(job, packed, flight)

    def _read(self, message: Message, job: Job) -> Reply:
        if message.has_error():
            return self._failed(job, message.error.code, message.error.reason or "")
        try:
            return messages.read_reply(job.partition_id, message.content)
        except (KeyError, ValueError, TypeError) as error:
            return failure(job.partition_id, "rejected", f"not a reply: {first_line(error)}")

    def _failed(self, job: Job, code: int, reason: str) -> Reply:
        if self._was_late(job):
            cause = f"past its deadline of {job.deadline_seconds:g} s; its worker was ended"
            return failure(job.partition_id, "timeout", cause)
        return failure(job.partition_id, *meaning(code, reason))

    def _was_late(self, job: Job) -> bool:
        begun = None if self._states is None else begun_file(self._states, job)
        if begun is None or not begun.exists():
            return False
        word = begun.read_text()
        begun.unlink(missing_ok=True)
        return word == "late"

    def _round_seconds(self, jobs: Sequence[Job]) -> float:
        waves = -(-len(jobs) // (self._waiting.parallel or max(1, len(jobs))))
        longest = max((job.deadline_seconds for job in jobs), default=0.0)
        return START_SECONDS + waves * (longest + GRACE_SECONDS)

    def _node_ids(self) -> set[int]:
        return set(self._grid.get_node_ids())

    def _ask_new_nodes(self) -> None:
        """Ask the nodes not known yet who they are; forget those that left."""
        present = self._node_ids()
        self._asked &= present
        self.nodes_of = {p: node for p, node in self.nodes_of.items() if node in present}
        new = sorted(present - self._asked)
        if not new:
            return
        sent = set(self._grid.push_messages([Message(RecordDict(), node, "query") for node in new]))
        until = time.monotonic() + START_SECONDS + 0.1 * len(new)
        while sent and time.monotonic() < until:
            for message in self._grid.pull_messages(list(sent)):
                sent.discard(message.metadata.reply_to_message_id)
                if not message.has_error():
                    self._introduce(message)
            if sent:
                self._pause()

    def _introduce(self, message: Message) -> None:
        partition_id = int(str(message.content.config_records["who"]["partition-id"]))
        node = message.metadata.src_node_id
        other = self.nodes_of.get(partition_id)
        if other is not None and other != node:
            raise RunError(f"two nodes say they are device {partition_id}: give each its own partition-id")
        self.nodes_of[partition_id] = node
        self._asked.add(node)

    def _pause(self, seconds: float = 0.0) -> None:
        if self._waiting.stop():
            raise Interrupted
        time.sleep(max(seconds, self._waiting.poll_seconds))
