"""How devices are asked: their jobs, what is sent with them, and the judged answers, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from fed_asi.devices.exchange import Exchange
from fed_asi.devices.job import Job, Twin
from fed_asi.devices.parts import sent
from fed_asi.devices.reply import Reply, failure, payload_bytes
from fed_asi.fleets.fleet import Fleet
from fed_asi.results.schema import DeviceRoundRecord
from fed_asi.rounds.answers import Answer, had_model
from fed_asi.rounds.executor import Executor, one_reply_a_job
from fed_asi.rounds.fates import Fate
from fed_asi.rounds.faults import Fault, fault_of
from fed_asi.rounds.job_order import Costs, in_order
from fed_asi.rounds.judging import Judge
from fed_asi.rounds.round_clock import RoundClock
from fed_asi.rounds.state import State
from fed_asi.training.sgd import learning_rate
from fed_asi.workplace.place import Workplace

TWINS: dict[bool | str, Twin | None] = {False: None, True: "unlimited", "plain": "plain"}


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is sent to every device that begins with the weights of one round. tensors: the weights. whole: all."""

    tensors: Mapping[str, Tensor]
    whole: Mapping[str, Tensor]


@dataclass(slots=True)
class Asking:
    """Brings jobs to devices. note: gets a round and a line on anything odd in it."""

    place: Workplace
    fleet: Fleet
    executor: Executor
    clock: RoundClock
    exchange: Exchange
    note: Callable[[int, str], None]
    _costs: Costs = field(default_factory=Costs)

    def job(self, round: int, partition_id: int, state: State) -> Job:
        """Return the job of a device that begins with the weights after the previous round."""
        config = self.place.config
        return Job(
            round=round,
            partition_id=partition_id,
            resources=self.fleet[partition_id].resources_at(round),
            lr=self.lr(round),
            factors_round=state.factors_round.get(partition_id, 0),
            deadline_seconds=config.compute.deadline_seconds,
            twin=TWINS[config.measure.twins],
        )

    def lr(self, round: int) -> float:
        """Return the learning rate of the devices that begin in a round."""
        train, rounds = self.place.config.train, self.place.config.rounds
        return learning_rate(train.lr, train.final_lr_ratio, train.lr_schedule, round, rounds)

    def checks(self, round: int) -> bool:
        """Return whether the first device that computes in a round checks its first step."""
        return round == 1 and self.place.config.compute.side_by_side

    def parcel(self, state: State) -> Parcel:
        """Return what is sent to every device that begins from a state, with the tensors of the strategy."""
        beside = self.exchange.strategy.sent(state.strategy, state.tensors)
        return Parcel(state.tensors, sent(state.tensors, self.place.reference) | beside)

    def fault(self, job: Job) -> Fault | None:
        """Return what [faults] does to a job."""
        return fault_of(self.place.config.faults, self.place.config.seed, job.round, job.partition_id)

    def answers(self, jobs: Mapping[int, tuple[Job, float]], parcel: Parcel) -> Iterator[Answer]:
        """Yield each device's answer. jobs: by partition id, with when each began; all with the parcel's weights."""
        self.clock.sends(parcel.whole)
        for reply in self._replies([job for job, _ in jobs.values()], parcel):
            job, began = jobs[reply.partition_id]
            answer = Judge(self.place, self.exchange, self.clock).answer(job, reply, parcel.tensors, began)
            self._learn_cost(job, answer.record)
            yield answer

    def unanswered(self, record: DeviceRoundRecord, found: Fate, parcel: Parcel) -> DeviceRoundRecord:
        """Return the row of a device that did not reply; if it was present, what all are sent was sent to it."""
        down = payload_bytes(parcel.whole, found.job.to_json()) if had_model(record) else 0
        return replace(record, bytes_up=0, bytes_down=down)

    def _replies(self, jobs: Sequence[Job], parcel: Parcel) -> Iterator[Reply]:
        """Yield one reply a job; a device that [faults] strikes is not asked to compute what would not be used."""
        asked = []
        for job in jobs:
            fault = self.fault(job)
            if fault is None:
                asked.append(job)
                continue
            down = payload_bytes(parcel.whole, job.to_json())  # it was sent what all are sent
            yield replace(failure(job.partition_id, fault.outcome, fault.cause), bytes_down=down)
        if not asked:
            return
        self.place.need_of(job.partition_id for job in asked)
        ordered = in_order(asked, self._cost, self.executor.parallel or 1)
        replies = self.executor.train(ordered, parcel.whole, self.exchange.sizes(parcel.tensors))
        yield from one_reply_a_job(replies, ordered, partial(self.note, jobs[0].round))

    def _cost(self, job: Job) -> float:
        """Return the expected duration of a job, learned from the jobs before it.

        The plan decides the seconds an image takes, and follows from what the device has.
        """
        return self._costs.estimate(job.resources, len(self.place.shards[job.partition_id]))

    def _learn_cost(self, job: Job, record: DeviceRoundRecord) -> None:
        if record.outcome == "trained" and record.host_seconds:
            self._costs.add(job.resources, record.host_seconds, len(self.place.shards[job.partition_id]))
