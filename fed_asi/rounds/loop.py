"""The one round loop: it serves the plain loop and Flower alike, so both give the same bits.

An Executor gets jobs to devices and brings back what they answered, in any order; who is asked, what is
averaged and what is recorded is decided here, from seeds and partition ids alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from fed_asi.devices.edge import readable
from fed_asi.devices.exchange import Exchange
from fed_asi.devices.job import Job, Twin
from fed_asi.devices.parts import sent
from fed_asi.devices.reply import FRESH, Reply, failure, payload_bytes
from fed_asi.errors import RunError, UpdateError
from fed_asi.fleets import fleet
from fed_asi.fleets.fleet import Fleet
from fed_asi.fleets.resources import of_one_round
from fed_asi.machine import cpus_here
from fed_asi.results.progress import Watcher
from fed_asi.results.schema import DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore
from fed_asi.rounds import checkpoints
from fed_asi.rounds.answers import Answer, by_reply, counted, had_model, still_to_ask
from fed_asi.rounds.checkpoints import Checkpoint, weights_digest
from fed_asi.rounds.executor import Executor, one_reply_a_job
from fed_asi.rounds.fates import Fate
from fed_asi.rounds.faults import Fault, fault_of
from fed_asi.rounds.group_judging import judge_groups
from fed_asi.rounds.job_order import Costs, in_order
from fed_asi.rounds.resuming import Resuming, kept_factors
from fed_asi.rounds.round_clock import RoundClock
from fed_asi.strategies import Round, State, Update, check_update
from fed_asi.training.evaluation import evaluate, load_tensors_
from fed_asi.training.sgd import learning_rate
from fed_asi.workplace.address import run_fingerprint
from fed_asi.workplace.place import Workplace

TWINS: dict[bool | str, Twin | None] = {False: None, True: "unlimited", "plain": "plain"}


class Rounds:
    """A run's rounds, from the first that is not recorded to the last.

    states: where the warm factors of its devices are seen from here; None: on machines of their own.
    """

    def __init__(
        self,
        place: Workplace,
        store: RunStore,
        executor: Executor,
        watcher: Watcher,
        states: Path | None = None,
    ) -> None:
        self.place, self.store, self.executor, self.watcher = place, store, executor, watcher
        self.config = place.config
        self.fleet: Fleet = fleet.build(self.config)
        self._factors_round: dict[int, int] = {}
        self._costs = Costs()
        self._checkpoints, self._states = store.folder / "checkpoints", states
        self._fingerprint = run_fingerprint(self.config)
        self._clock = RoundClock(place, self.fleet)
        self._to_check = False  # whether the next device that computes holds its first step against another
        self._exchange = Exchange.of(self.config)
        self._strategy: State = {}

    def run(self) -> dict[str, Tensor]:
        """Return the last round's tensors. Raises RunError where the disk fails; what is recorded stays."""
        done, tensors = self._start()
        for round in range(done + 1, self.config.rounds + 1):
            tensors = self._round(round, tensors)
        return tensors

    def _start(self) -> tuple[int, dict[str, Tensor]]:
        if not self.store.rounds():
            tensors = {name: tensor.clone() for name, tensor in self.place.reference.items()}
            begun = self._clock.closed(RoundRecord(0, 0, 0, None, None), [], 0.0)
            self._clock.check(self._job(1, device.partition_id) for device in self.fleet)
            for text in self._clock.notes():
                self.store.note(text)
            self._finish_round(begun, [], tensors, time.perf_counter())
            return 0, tensors
        state = Resuming(self.place, self.store, self._checkpoints, self._states).last_whole()
        self._factors_round |= state.factors_round
        self._clock.set(self.store.rounds(), self.store.device_rounds())
        self._strategy = state.strategy
        return state.round, state.tensors

    def _round(self, round: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        started = time.perf_counter()
        jobs = self.jobs(round)
        self.watcher.round_started(round, self.config.rounds, len(jobs))
        answers, left_out = self._answers(jobs, tensors)
        counts = counted(answers, self._clock.wanted)
        end = self._clock.end(answers, left_out)
        records = self._clock.recorded(answers, counts, end)
        records += self._left_out(left_out, end, len(counts), tensors)
        records.sort(key=lambda record: record.partition_id)
        self._note_all(answers)
        new = self._combine(round, tensors, [one.update for one in counts if one.update is not None])
        summary = RoundRecord(round, len(jobs), len(counts), None, None, lr=jobs[0].lr)
        self._finish_round(self._clock.closed(summary, records, end), records, new, started)
        self._factors_round |= {r.partition_id: kept_factors(r) for r in records if r.outcome == "trained"}
        return new

    def _answers(self, jobs: Sequence[Job], tensors: Mapping[str, Tensor]) -> tuple[list[Answer], list[Fate]]:
        """Return the replies to a round, and the fates of those from whom none came."""
        self._to_check = jobs[0].round == 1 and self.config.compute.side_by_side
        waiting, gone = by_reply(self._clock.fates(jobs, self._sent(tensors)))
        answers: list[Answer] = []
        while wave := still_to_ask(waiting, answers, self._clock.wanted):  # once, unless more are asked
            waiting = waiting[len(wave) :]
            answers += self._judged([found.job for found in wave], tensors)
        return answers, [*gone, *waiting]

    def _left_out(
        self, fates: Sequence[Fate], end: float, replies: int, tensors: Mapping[str, Tensor]
    ) -> Iterator[DeviceRoundRecord]:
        """Yield the records of those from whom no reply came; whoever had the model was sent what all are sent."""
        parcel = self._sent(tensors)
        for found in fates:
            record = self._clock.left_out(found, end, replies)
            down = payload_bytes(parcel, found.job.to_json()) if had_model(record) else 0
            record = replace(record, bytes_up=0, bytes_down=down)
            self.watcher.device_done(record)
            yield record

    def _note_all(self, answers: Sequence[Answer]) -> None:
        """Record what devices said, by partition id. Raises RunError as `_refuse_fresh` does."""
        texts = [
            text for one in sorted(answers, key=lambda one: one.record.partition_id) for text in one.notes
        ]
        self._refuse_fresh(texts)
        for text in texts:
            self.store.note(text)

    def _judged(self, jobs: Sequence[Job], tensors: Mapping[str, Tensor]) -> Iterator[Answer]:
        """Yield each device's answer, in whatever order they come."""
        job_of = {job.partition_id: job for job in jobs}
        for reply in self._replies(jobs, tensors):
            job = job_of[reply.partition_id]
            answer = self._judge(job, reply, tensors)
            self._learn_cost(job, answer.record)
            self.watcher.device_done(answer.record)
            yield answer

    def _replies(self, jobs: Sequence[Job], tensors: Mapping[str, Tensor]) -> Iterator[Reply]:
        """Yield one reply a job; a device that [faults] strikes is not asked to compute what nobody would use."""
        parcel, asked = self._sent(tensors), []
        for job in jobs:
            fault = self._fault(job.round, job.partition_id)
            if fault is None:
                asked.append(job)
                continue
            down = payload_bytes(parcel, job.to_json())  # it was sent what all are sent
            yield replace(failure(job.partition_id, fault.outcome, fault.cause), bytes_down=down)
        if not asked:
            return
        if self._to_check:
            asked[0], self._to_check = replace(asked[0], check=True), False
        ordered = in_order(asked, self._cost, self.executor.parallel or 1)
        replies = self.executor.train(ordered, parcel, self._exchange.sizes(tensors))
        yield from one_reply_a_job(replies, ordered, partial(self._note, jobs[0].round))

    def _sent(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what goes to every device of a round: the weights, and what the strategy sends beside them."""
        return sent(tensors, self.place.reference) | self._exchange.strategy.sent(self._strategy, tensors)

    def _fault(self, round: int, partition_id: int) -> Fault | None:
        return fault_of(self.config.faults, self.config.seed, round, partition_id)

    def _combine(self, round: int, tensors: dict[str, Tensor], updates: list[Update]) -> dict[str, Tensor]:
        """Return what the strategy makes of a round's updates; its state and notes are kept."""
        given = Round.of(round, tensors, updates, len(self.fleet), self.config.train.momentum)
        found = self._exchange.strategy.combine(given, self._strategy)
        self._strategy = found.state
        for text in found.notes:
            self._note(round, text)
        return found.tensors

    def jobs(self, round: int) -> list[Job]:
        """Return what each device of a round's cohort is asked, by partition id."""
        return [self._job(round, one) for one in self._clock.cohort(round)]

    def _job(self, round: int, partition_id: int) -> Job:
        train = self.config.train
        return Job(
            round=round,
            partition_id=partition_id,
            resources=self.fleet[partition_id].resources_at(round),
            lr=learning_rate(train.lr, train.final_lr_ratio, train.lr_schedule, round, self.config.rounds),
            factors_round=self._factors_round.get(partition_id, 0),
            deadline_seconds=self.config.compute.deadline_seconds,
            twin=TWINS[self.config.measure.twins],
        )

    def _cost(self, job: Job) -> float:
        """Return how long the job will take, as far as those before it tell.

        The plan decides the seconds an image takes, and follows from what the device has.
        """
        return self._costs.estimate(job.resources, len(self.place.shards[job.partition_id]))

    def _learn_cost(self, job: Job, record: DeviceRoundRecord) -> None:
        if record.outcome == "trained" and record.host_seconds:
            self._costs.add(job.resources, record.host_seconds, len(self.place.shards[job.partition_id]))

    def _note(self, round: int, text: str) -> None:
        self.store.note(f"round {round}: {text}")

    def _refuse_fresh(self, notes: Sequence[str]) -> None:
        """Raise RunError where a device that keeps its factors here lost them: the run would end with other weights.

        A device on a machine of its own may lose its disk, as it may go away: that is noted, and the run goes on.
        """
        lost = [text for text in notes if FRESH in text]
        if lost and self._states is not None:
            raise RunError(f"{lost[0]}; so the round is not recorded")

    def _judge(self, job: Job, reply: Reply, tensors: Mapping[str, Tensor]) -> Answer:
        """Return the device's answer, without an update where there is none or it must not be averaged."""
        stats = of_one_round(job.resources) | reply.stats
        update = None
        if stats["outcome"] == "trained":
            try:
                update = self._update(job, reply, tensors)
            except UpdateError as error:
                update, stats["outcome"], stats["cause"] = None, "rejected", readable(str(error))
        found = self._by_the_clock(job, stats)
        if found.outcome is not None and stats["outcome"] == "trained":  # it took longer than its first plan
            update, stats["outcome"], stats["cause"] = None, found.outcome, found.cause
        record = DeviceRoundRecord(
            round=job.round,
            partition_id=reply.partition_id,
            host_seconds=reply.host_seconds,
            bytes_up=reply.bytes_up,
            bytes_down=reply.bytes_down,
            **stats,
            **({} if found.spent is None else found.spent.columns()),
        )
        return Answer(record, update, found, reply.notes)

    def _by_the_clock(self, job: Job, stats: dict[str, Any]) -> Fate:
        timing = self._clock.timing
        return self._clock.fate(job, None if timing is None else timing.after(job, stats))

    def _update(self, job: Job, reply: Reply, tensors: Mapping[str, Tensor]) -> Update:
        """Return the update that a reply means. Raises UpdateError for one that no strategy may see."""
        trained, beside = self._exchange.read(reply.tensors, reply.trained, tensors, reply.slices)
        examples, steps = (int(reply.stats.get(key) or 0) for key in ("num_examples", "steps"))
        weights = self._weights(reply)
        update = Update(reply.partition_id, examples, trained, weights, steps, beside, reply.slices)
        check_update(update, self.place.reference, reply.trained)
        self._exchange.strategy.check(update, tensors)
        if self._exchange.strategy.counts_steps and not 1 <= steps <= self._most_steps(job):
            raise UpdateError(f"it says it took {steps} steps, and was asked for {self._most_steps(job)}")
        return update

    def _most_steps(self, job: Job) -> int:
        """Return how many steps a device takes that trains on all of its shard."""
        images = len(self.place.shard(job.partition_id).train)
        return self.config.train.epochs * -(-images // job.resources.batch_size)

    def _weights(self, reply: Reply) -> dict[str, float]:
        settings = self.config.aggregate
        if settings.weights == "examples" and settings.min_fidelity == 0.0:
            return {}
        kept = {n: share if share >= settings.min_fidelity else 0.0 for n, share in reply.weights.items()}
        if settings.weights == "examples":
            return {name: float(share > 0.0) for name, share in kept.items()}
        return kept

    def _finish_round(
        self,
        summary: RoundRecord,
        records: Sequence[DeviceRoundRecord],
        tensors: dict[str, Tensor],
        started: float,
    ) -> None:
        """Judge the weights, write their checkpoint, then the records: these make the round count."""
        place = self.place
        load_tensors_(place.tail, tensors)
        found = evaluate(
            place.tail, place.test_features, place.test_labels, place.num_classes, workers=cpus_here()
        )
        groups = judge_groups(place, self.fleet, summary.round) if self._judges_groups(summary.round) else ()
        checkpoints.save(
            self._checkpoints, Checkpoint(summary.round, self._fingerprint, tensors, self._strategy)
        )
        record = replace(
            summary,
            loss=found.loss,
            accuracy=found.accuracy,
            worst_class_accuracy=found.worst_class_accuracy,
            host_seconds=time.perf_counter() - started,
            bytes_up=sum(one.bytes_up or 0 for one in records),
            bytes_down=sum(one.bytes_down or 0 for one in records),
            weights_sha256=weights_digest(tensors),
        )
        self.store.add_round(record, records, groups)
        self.watcher.round_done(record)

    def _judges_groups(self, round: int) -> bool:
        when = self.config.measure.groups
        return when == "every-round" or (when == "ends" and round in {0, self.config.rounds})
