"""The one round loop: it serves the plain loop and Flower alike, so both give the same bits.

An Executor gets jobs to devices and brings back what they answered, in any order; who is asked, what is
averaged and what is recorded is decided here, from seeds and partition ids alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from fed_asi import checkpoint, federated_calibration, fleet, seeds
from fed_asi.aggregate import Update, average, check_update
from fed_asi.checkpoint import Checkpoint
from fed_asi.config import RunConfig
from fed_asi.config_checks import cpus_here
from fed_asi.device_plans import Limits
from fed_asi.errors import BudgetError, RunError, UpdateError
from fed_asi.evaluation import evaluate, load_tensors_
from fed_asi.fleet import Fleet
from fed_asi.local import Job, learning_rate
from fed_asi.prepare import prepare
from fed_asi.progress import Unwatched, Watcher
from fed_asi.records import DeviceRecord, DeviceRoundRecord, RoundRecord, RunStore
from fed_asi.replies import Reply, answer, payload_bytes
from fed_asi.schedule import Costs, in_order
from fed_asi.units import format_bytes
from fed_asi.workplace import Workplace, fingerprint, workplace_folder


class Executor(Protocol):
    """Gets jobs to devices. It answers for every job: a device that is lost is a Reply with its outcome."""

    @property
    def parallel(self) -> int | None:
        """Devices at work at once; None: all that are asked."""

    def train(self, jobs: Sequence[Job], tensors: Mapping[str, Tensor]) -> Iterable[Reply]:
        """Yield one reply a job, in whatever order they come. jobs: begun in this order. tensors: the global ones."""


def sample_cohort(seed: int, round: int, partition_ids: Iterable[int], size: int) -> list[int]:
    """Return the sorted partition ids asked in a round, a pure function of seed, round and fleet."""
    known = sorted(partition_ids)
    rng = seeds.rng(seed, "cohort", round)
    return sorted(int(i) for i in rng.choice(known, size=min(size, len(known)), replace=False))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, to compare runs to the bit."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.numpy().tobytes())
    return sha.hexdigest()


class Rounds:
    """A run's rounds, from the first that is not recorded to the last."""

    def __init__(self, place: Workplace, store: RunStore, executor: Executor, watcher: Watcher) -> None:
        self.place, self.store, self.executor, self.watcher = place, store, executor, watcher
        self.config = place.config
        self.fleet: Fleet = fleet.build(self.config)
        self._factors_round: dict[int, int] = {}
        self._costs = Costs()
        self._checkpoints = store.folder / "checkpoints"
        self._fingerprint = fingerprint(self.config)

    def run(self) -> dict[str, Tensor]:
        """Return the last round's tensors. Raises RunError where the disk fails; what is recorded stays."""
        done, tensors = self._start()
        for round in range(done + 1, self.config.rounds + 1):
            tensors = self._round(round, tensors)
        return tensors

    def _start(self) -> tuple[int, dict[str, Tensor]]:
        recorded = [record.round for record in self.store.rounds()]
        if not recorded:
            tensors = {name: tensor.clone() for name, tensor in self.place.reference.items()}
            self._finish_round(RoundRecord(0, 0, 0, None, None), [], tensors, time.perf_counter())
            return 0, tensors
        last = max(recorded)
        for row in self.store.device_rounds():
            if row.outcome == "trained":
                self._factors_round[row.partition_id] = row.round
        return last, checkpoint.load(self._checkpoints, last, self._fingerprint).tensors

    def _round(self, round: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        started = time.perf_counter()
        jobs = self.jobs(round)
        self.watcher.round_started(round, self.config.rounds, len(jobs))
        records: list[DeviceRoundRecord] = []
        updates: list[Update] = []
        notes: dict[int, tuple[str, ...]] = {}
        job_of = {job.partition_id: job for job in jobs}
        for reply in self._replies(in_order(jobs, self._cost, self.executor.parallel or 1), tensors):
            record, update = self._judge(round, reply)
            self._learn_cost(job_of[reply.partition_id], record)
            records.append(record)
            notes[reply.partition_id] = reply.notes
            updates.extend([update] if update is not None else [])
            self.watcher.device_done(record)
        new = average(updates, tensors)
        records.sort(key=lambda record: record.partition_id)
        for partition_id in sorted(notes):
            for text in notes[partition_id]:
                self.store.note(text)
        summary = RoundRecord(round, len(jobs), len(updates), None, None, lr=jobs[0].lr)
        self._finish_round(summary, records, new, started)
        self._factors_round.update((update.partition_id, round) for update in updates)
        return new

    def jobs(self, round: int) -> list[Job]:
        """Return what each device of a round's cohort is asked, by partition id."""
        train = self.config.train
        lr = learning_rate(train.lr, train.final_lr_ratio, train.lr_schedule, round, self.config.rounds)
        cohort = sample_cohort(self.config.seed, round, self.fleet.partition_ids, self.config.cohort)
        jobs = []
        for partition_id in cohort:
            device = self.fleet[partition_id]
            jobs.append(
                Job(
                    round=round,
                    partition_id=partition_id,
                    budget_bytes=device.budget_at(round),
                    batch_size=device.batch_size,
                    micro_batch=device.micro_batch,
                    lr=lr,
                    factors_round=self._factors_round.get(partition_id, 0),
                    check=round == 1 and partition_id == cohort[0] and self.config.compute.side_by_side,
                    deadline_seconds=self.config.compute.deadline_seconds,
                )
            )
        return jobs

    def _cost(self, job: Job) -> float:
        """Return how long the job will take, as far as those before it tell."""
        return self._costs.estimate(_kind(job), len(self.place.shards[job.partition_id]))

    def _learn_cost(self, job: Job, record: DeviceRoundRecord) -> None:
        if record.outcome == "trained" and record.host_seconds:
            self._costs.add(_kind(job), record.host_seconds, len(self.place.shards[job.partition_id]))

    def _replies(self, jobs: Sequence[Job], tensors: Mapping[str, Tensor]) -> Iterator[Reply]:
        """Yield exactly one reply a job, whatever the executor does."""
        waiting = {job.partition_id for job in jobs}
        for reply in self.executor.train(jobs, tensors):
            if reply.partition_id in waiting:
                waiting.discard(reply.partition_id)
                yield reply
        for partition_id in sorted(waiting):
            yield Reply(partition_id, {"outcome": "failed", "cause": "no reply came back"})

    def _judge(self, round: int, reply: Reply) -> tuple[DeviceRoundRecord, Update | None]:
        """Return the device's record, and its update unless there is none or it must not be averaged."""
        stats = {"budget_bytes": self.fleet[reply.partition_id].budget_at(round), **reply.stats}
        update = None
        if stats["outcome"] == "trained":
            update = Update(
                reply.partition_id, int(stats.get("num_examples") or 0), reply.tensors, self._weights(reply)
            )
            try:
                check_update(update, self.place.reference, reply.trained)
            except UpdateError as error:
                update, stats["outcome"], stats["cause"] = None, "rejected", str(error)
        record = DeviceRoundRecord(
            round=round,
            partition_id=reply.partition_id,
            host_seconds=reply.host_seconds,
            bytes_up=reply.bytes_up,
            bytes_down=reply.bytes_down,
            **stats,
        )
        return record, update

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
        checkpoint.save(self._checkpoints, Checkpoint(summary.round, self._fingerprint, tensors))
        record = RoundRecord(
            round=summary.round,
            asked=summary.asked,
            trained=summary.trained,
            loss=found.loss,
            accuracy=found.accuracy,
            worst_class_accuracy=found.worst_class_accuracy,
            lr=summary.lr,
            host_seconds=time.perf_counter() - started,
            bytes_up=sum(one.bytes_up or 0 for one in records),
            bytes_down=sum(one.bytes_down or 0 for one in records),
            weights_sha256=digest(tensors),
        )
        self.store.add_round(record, records)
        self.watcher.round_done(record)


def _kind(job: Job) -> Limits:
    """Return what decides the seconds an image takes: the plan, which follows from the device's limits."""
    return Limits(job.budget_bytes, job.batch_size, job.micro_batch)


class LoopExecutor:
    """Trains the devices one after another in this process, without Flower and Ray."""

    parallel = 1

    def __init__(self, place: Workplace, states: Path) -> None:
        self._place = place
        self._states = states

    def train(self, jobs: Sequence[Job], tensors: Mapping[str, Tensor]) -> Iterator[Reply]:
        """Yield each device's reply in the order of `jobs`; a device that raises is "failed"."""
        torch.set_num_threads(self._place.config.compute.threads)
        for job in jobs:
            factors = checkpoint.load_factors(self._states, job.partition_id, job.factors_round)
            reply, kept = answer(self._place, job, tensors, factors)
            if kept:
                checkpoint.save_factors(self._states, job.partition_id, job.round, job.factors_round, kept)
            down = payload_bytes(tensors, job.to_json())
            yield replace(reply, bytes_up=payload_bytes(reply.tensors, reply.to_json()), bytes_down=down)


def run_loop(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    data_dir: Path | None = None,
    weights_dir: Path | None = None,
    watcher: Watcher | None = None,
) -> None:
    """Do a whole run in this process and record it in `folder`; with `resume`, the rest of one.

    Raises FedAsiError, one line for the user, and KeyboardInterrupt; both are recorded as the run's status.
    """
    watcher = watcher or Unwatched()
    with recording(config, folder, resume) as store:
        place = prepare(
            config, workplace_folder(folder), data_dir=data_dir, weights_dir=weights_dir, watcher=watcher
        )
        conduct(place, store, LoopExecutor(place, folder / "devices"), watcher)


def conduct(place: Workplace, store: RunStore, executor: Executor, watcher: Watcher) -> None:
    """Do the rounds that are not recorded yet, and record that the run is finished."""
    devices = fleet.build(place.config)
    store.add_devices(
        DeviceRecord(
            d.partition_id,
            d.group,
            d.budget_bytes,
            d.batch_size,
            d.micro_batch,
            len(place.shards[d.partition_id]),
        )
        for d in devices
    )
    if not store.rounds():
        for text in (*place.notes, *_planned_ahead(place, devices)):
            store.note(text)
    if place.config.method.calibration == "federated":
        _calibrate(place, store, executor, watcher)
    tensors = Rounds(place, store, executor, watcher).run()
    store.set_status("finished", weights_sha256=digest(tensors))


def _planned_ahead(place: Workplace, devices: Fleet) -> Iterator[str]:
    """Yield what each schedule of budgets will plan, from the server's profile; a budget too small is named."""
    told: set[tuple[object, ...]] = set()
    for device in devices:
        key = (device.group, device.budget_bytes, device.batch_size, device.micro_batch, device.schedule)
        if not device.schedule or key in told:
            continue
        told.add(key)
        parts = []
        for start, budget in ((1, device.budget_bytes), *device.schedule):
            try:
                chosen = place.plans.first(Limits(budget, device.batch_size, device.micro_batch))
                parts.append(f"{format_bytes(chosen.planned_bytes)} from round {start}")
            except BudgetError as error:
                parts.append(f"no plan from round {start} ({str(error).partition(' (')[0]})")
        yield f"{device.group}, device {device.partition_id} and those like it, planned ahead: {', '.join(parts)}"


def _calibrate(place: Workplace, store: RunStore, executor: Executor, watcher: Watcher) -> None:
    """Ask some devices for their sums, in two passes, and write everyone's profile where devices read it.

    A device that fails is left out and named. Raises RunError where none answers.
    """
    path = place.folder / federated_calibration.EVERYONE
    if path.exists():
        return
    asked = federated_calibration.choose(place)
    watcher.stage(f"calibration on {len(asked)} devices")
    sent: list[Reply] = []
    pooled: dict[str, Tensor] = {}
    for phase in (federated_calibration.SPECTRA, federated_calibration.TRIALS):
        deadline = place.config.compute.deadline_seconds
        jobs = [Job(0, i, None, 1, None, 0.0, deadline_seconds=deadline, phase=phase) for i in asked]
        replies = sorted(executor.train(jobs, pooled), key=lambda reply: reply.partition_id)
        for reply in replies:
            if reply.stats["outcome"] != "calibrated":
                store.note(f"calibration: device {reply.partition_id} left out: {reply.stats.get('cause')}")
        sent = [reply for reply in replies if reply.stats["outcome"] == "calibrated"]
        asked = [reply.partition_id for reply in sent]
        if not sent:
            break
        if phase == federated_calibration.SPECTRA:
            pooled = federated_calibration.add([reply.tensors for reply in sent])
    made = federated_calibration.pooled_profile(place, pooled, [reply.tensors for reply in sent])
    checkpoint.write_file(path, made.to_json().encode())
    size = max(payload_bytes(reply.tensors, "") for reply in sent)
    store.note(
        f"calibration: sums of {len(sent)} devices, {made.num_examples} images, at most {format_bytes(size)} "
        "each in the second pass; no image left a device"
    )


@contextmanager
def recording(config: RunConfig, folder: Path, resume: bool) -> Iterator[RunStore]:
    """Give the run's store, new or opened again, and record how the block ends."""
    store = RunStore.open(folder) if resume else RunStore.create(folder, config, versions())
    with store:
        if fingerprint(store.config()) != fingerprint(config):
            raise RunError(f"{folder} holds a run of other settings: choose another name, or remove it")
        store.set_status("running")
        try:
            yield store
        except KeyboardInterrupt:
            store.set_status("interrupted", cause="stopped by the user")
            raise
        except BaseException as error:
            with contextlib.suppress(RunError):  # the disk may be what failed
                store.set_status("failed", cause=str(error) or type(error).__name__)
            raise


def versions() -> dict[str, str]:
    """Return the versions that decide a run's last bits."""
    packages = ("fed-asi", "torch", "torchvision", "numpy", "flwr", "ray")
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
