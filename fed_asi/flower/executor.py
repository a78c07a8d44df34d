"""The round loop's executor on Flower: jobs are sent as messages, and each of them gets a reply."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from torch import Tensor

from fed_asi.devices.job import Job
from fed_asi.devices.reply import Reply, failure, limit_bytes, payload_bytes
from fed_asi.errors import UpdateError
from fed_asi.flower import messages
from fed_asi.flower.depot import Parcels
from fed_asi.flower.failures import NO_NODE, is_gone, meaning
from fed_asi.flower.home import LATE_WORD, clear_word, word_left
from fed_asi.flower.mail import Mail
from fed_asi.flower.nodes import Nodes
from fed_asi.flower.waiting import Waiting
from fed_asi.workplace.address import RunAddress

Packed = ArrayRecord | str  # a round's tensors, or their key in the depot


@dataclass(slots=True)
class _Flight:
    """The jobs of a round that are under way, by message id, and how often each was sent again."""

    jobs_of: dict[str, Job]
    tries: dict[int, int]


class FlowerExecutor:
    """Sends jobs through a Flower grid.

    expected: devices of the fleet. states: where this machine's workers mark devices that hang; None: devices are on
    machines of their own. note: gets a line on each node that is not as it should be, and on each device that lost its
    twin. simulated: see `Nodes`. parcels: where a round's tensors are held for all machines; None: every message
    carries them.
    """

    def __init__(
        self,
        grid: Grid,
        expected: int,
        run: RunAddress,
        waiting: Waiting,
        states: Path | None = None,
        note: Callable[[str], None] = lambda _text: None,
        simulated: Callable[[], Mapping[int, int]] | None = None,
        parcels: Parcels | None = None,
    ) -> None:
        self._parcels = parcels
        self._run, self._waiting, self._states = run, waiting, states
        self._mail, self._note = Mail(grid, waiting), note
        self._nodes = Nodes(self._mail, expected, waiting, note, simulated)

    @property
    def parallel(self) -> int | None:
        """Devices at work at once; None: all that are asked."""
        return self._waiting.parallel

    def find_devices(self) -> None:
        """Wait until every device is there, or time is up, and ask each who it is.

        Raises RunError where none came, or two say they are the same device.
        """
        self._nodes.find()

    def train(
        self, jobs: Sequence[Job], tensors: Mapping[str, Tensor], sizes: Mapping[str, int] | None = None
    ) -> Iterator[Reply]:
        """Yield one reply a job as they come; a device that is not there or does not answer is named."""
        self._nodes.ask()
        limit = limit_bytes({name: one.nbytes for name, one in tensors.items()} if sizes is None else sizes)
        flight = _Flight({}, {})
        with self._packed(tensors) as packed:
            for job in jobs:
                if not self._send(job, packed, flight):
                    yield failure(job.partition_id, "failed", NO_NODE)
            for reply, job in self._replies(flight, packed, limit):
                yield replace(reply, bytes_down=payload_bytes(tensors, job.to_json()))

    def _packed(self, tensors: Mapping[str, Tensor]) -> AbstractContextManager[Packed]:
        """Give a round's tensors as its messages carry them, or their key in the depot."""
        return (
            nullcontext(messages.pack(tensors)) if self._parcels is None else self._parcels.holding(tensors)
        )

    def _send(self, job: Job, packed: Packed, flight: _Flight) -> bool:
        """Send one job; return whether its device is there."""
        node = self._nodes.of.get(job.partition_id)
        if node is None:
            return False
        if self._states is not None:
            clear_word(self._states, job)
        message_id = self._mail.send(messages.write_job(job, packed, self._run), node, "train")
        if message_id:
            flight.jobs_of[message_id] = job
        return bool(message_id)

    def _replies(self, flight: _Flight, packed: Packed, limit: int) -> Iterator[tuple[Reply, Job]]:
        jobs_of = flight.jobs_of
        until = time.monotonic() + self._round_seconds(list(jobs_of.values()))
        while jobs_of and time.monotonic() < until:
            for message_id, found in self._mail.replies(list(jobs_of)):
                job = jobs_of.pop(message_id, None)
                if job is None or self._sent_again(found, job, packed, flight):
                    continue
                yield self._read(found, job, limit), job
            if jobs_of:
                self._waiting.pause()
        for job in jobs_of.values():
            yield failure(job.partition_id, "timeout", "no reply before the round's deadline"), job

    def _sent_again(self, found: Message | str, job: Job, packed: Packed, flight: _Flight) -> bool:
        """Send a job again if its worker process died before starting it; return whether it was sent.

        Ray restarts a worker within seconds, and until then refuses what is sent to it. If a process died at work on a
        job with a twin, the job is sent again without it: it may have died in the twin, which must cost the device
        nothing.
        """
        if isinstance(found, str) or not found.has_error():
            return False
        reason, tries = str(found.error.reason or ""), flight.tries.get(job.partition_id, 0)
        if self._never_began(reason, job) and tries < self._waiting.tries:
            flight.tries[job.partition_id] = tries + 1
            self._waiting.pause(self._waiting.restart_seconds)
            return self._send(job, packed, flight)
        if job.twin is None:
            return False
        outcome, cause = meaning(found.error.code, reason)
        if outcome not in {"killed", "timeout"}:
            return False
        self._note(
            f"device {job.partition_id} is asked again without its twin, as its process ended: {cause}"
        )
        return self._send(replace(job, twin=None), packed, flight)

    def _never_began(self, reason: str, job: Job) -> bool:
        return self._states is not None and is_gone(reason) and word_left(self._states, job) is None

    def _read(self, found: Message | str, job: Job, limit: int) -> Reply:
        """Return the reply that a device sent; anything that is not a reply is "rejected", with the reason."""
        try:
            if isinstance(found, str):
                raise UpdateError(found)
            if found.has_error():
                return self._failed(job, found.error.code, str(found.error.reason or ""))
            if not found.has_content():
                raise UpdateError("an empty message")
            return messages.read_reply(job, found.content, limit)
        except UpdateError as error:
            return failure(job.partition_id, "rejected", f"not a reply: {error}")

    def _failed(self, job: Job, code: int, reason: str) -> Reply:
        late = self._states is not None and word_left(self._states, job) == LATE_WORD
        if self._states is not None:
            clear_word(self._states, job)
        if late:
            cause = f"past its deadline of {job.deadline_seconds:g} s; its worker was ended"
            return failure(job.partition_id, "timeout", cause)
        return failure(job.partition_id, *meaning(code, reason))

    def _round_seconds(self, jobs: Sequence[Job]) -> float:
        waves = -(-len(jobs) // (self._waiting.parallel or max(1, len(jobs))))
        longest = max((job.patience_seconds for job in jobs), default=0.0)
        if any(job.twin is not None for job in jobs):  # whose devices may be asked again
            longest += max(job.deadline_seconds for job in jobs)
        return self._waiting.start_seconds + waves * (longest + self._waiting.grace_seconds)
