"""One device's work in one round: plan for its own budget, train on its shard, never keep more than it may.

It knows nothing of Flower: a job and the global tensors go in, an update and its records come out. The same
function serves the plain loop, Ray workers and real devices, which is why their weights are equal to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fed_asi import layers, seeds
from fed_asi.compression.compress import compress_, uncompress_
from fed_asi.compression.gradient_checkpointing import Checkpointed
from fed_asi.devices.calibration import plans_for
from fed_asi.devices.exchange import Exchange, Upload
from fed_asi.devices.job import Job
from fed_asi.devices.kept import ByKind, Kept
from fed_asi.devices.warm_factors import WarmFactors, factors_bytes, factors_on
from fed_asi.errors import BudgetError, OverBudgetError
from fed_asi.fleets.resources import of_one_round
from fed_asi.gpus import CPU
from fed_asi.layers.slices import Slice
from fed_asi.planning.device_plans import Attempt, DevicePlans, within_of
from fed_asi.planning.plan import Plan
from fed_asi.storage.frozen import store_frozen_
from fed_asi.storage.trained import HalfWeights
from fed_asi.strategies.local import AtDevice, named_on
from fed_asi.training.evaluation import evaluate, load_tensors_
from fed_asi.training.sgd import Sgd
from fed_asi.training.steps import DeadlineError, Stepper, compare, training_mode_
from fed_asi.training.whole_step import WholeStep
from fed_asi.units import format_bytes
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.shard import Shard


@dataclass(frozen=True, slots=True)
class LocalResult:
    """The result of one device. stats: columns of device_rounds. tensors: what it trained. sent: the same, encoded.

    factors: the state to keep: warm factors, and the tensors of strategy and codec.
    """

    stats: dict[str, Any]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    factors: WarmFactors = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)  # share of the gradient captured, by tensor
    notes: tuple[str, ...] = ()
    host_seconds: float = 0.0
    slices: Mapping[str, Slice] = field(default_factory=dict)  # where those tensors belong that are parts
    sent: dict[str, Tensor] = field(default_factory=dict)
    plan: Plan | None = None  # that it trained under

    def whole(self, sent: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors with all parts put into what was sent, so that each is whole."""
        found = dict(self.tensors)
        for name, part in self.slices.items():
            found[name] = sent[name].clone()
            part.load_(found[name], self.tensors[name])
        return found


def train_locally(
    place: Workplace,
    job: Job,
    tensors: Mapping[str, Tensor],
    factors: WarmFactors | None = None,
    plan: Plan | None = None,
) -> LocalResult:
    """Return the update of one device, or why there is none ("out-of-memory", "excluded", "timeout").

    tensors: the global ones by name, and those of the strategy. factors: the state it kept: warm factors, which are cut
    or padded to the plan's ranks, and the tensors of strategy and codec.
    plan: to train by; None: the first of the device's own plans that fits.
    The place's tail is used and always given back as it was, without gradients.
    """
    started, place = time.perf_counter(), place.seen_by(job.partition_id)
    stats = of_one_round(job.resources)
    try:
        device = _Device.of(place, job, tensors, factors, started)
        attempts = device.plans.attempts(job.resources) if plan is None else [Attempt(plan)]
        result = _first_within_budget(device, attempts, stats)
    except BudgetError as error:
        result = LocalResult({**stats, "outcome": "excluded", "cause": str(error)})
    except OverBudgetError as error:
        result = LocalResult({**stats, "outcome": "out-of-memory", "cause": str(error)})
    except DeadlineError as error:
        result = LocalResult({**stats, "outcome": "timeout", "cause": str(error)})
    finally:
        uncompress_(place.tail)
        for parameter in place.tail.parameters():
            parameter.grad = None  # left by an unfinished step; it would be added to the next device's
    return replace(result, host_seconds=time.perf_counter() - started)


@dataclass(frozen=True, slots=True)
class _Device:
    """One device at work: its job, and where it works."""

    place: Workplace
    job: Job
    tensors: Mapping[str, Tensor]
    beside: ByKind  # what the strategy sent
    kept: Kept
    exchange: Exchange
    started: float

    @classmethod
    def of(
        cls,
        place: Workplace,
        job: Job,
        tensors: Mapping[str, Tensor],
        state: WarmFactors | None,
        started: float,
    ) -> _Device:
        """Return the device that a job is for, with the state it kept."""
        exchange = Exchange.of(place.config)
        weights, beside = exchange.split(tensors)
        return cls(place, job, weights, beside, Kept.of(state or {}), exchange, started)

    def upload(self, names: Iterable[str], slices: Mapping[str, Slice]) -> Upload:
        """Return the upload of this round, by strategy and codec, for the trained tensors.

        slices: for those trained in part, which part, on the CPU.
        """
        start = {name: self.tensors[name] for name in names}
        by_kind = self.kept.by_kind
        lost = self.job.factors_round > 0 and not by_kind
        # Tensors that only other devices train came too, but are not held.
        beside = {kind: {n: named[n] for n in start if n in named} for kind, named in self.beside.items()}
        given = AtDevice(start, self.job.lr, beside, by_kind, lost)
        return Upload(self.exchange, given, slices, self.place.device)

    @property
    def plans(self) -> DevicePlans:
        return plans_for(self.place, self.job.partition_id)


def _first_within_budget(device: _Device, attempts: Iterable[Attempt], stats: dict[str, Any]) -> LocalResult:
    """Return the result under the first plan that keeps its promise; if none does, the last plan's error."""
    refused: OverBudgetError | None = None
    for attempt in attempts:
        try:
            return _train(device, attempt, stats)
        except OverBudgetError as error:
            refused = error
            stats |= error.columns
            uncompress_(device.place.tail)
    if refused is None:
        raise BudgetError("no plan was tried")
    raise refused


def _train(device: _Device, attempt: Attempt, stats: dict[str, Any]) -> LocalResult:
    """Return the update of a device under this plan. Raises what `Stepper.step_` does."""
    place, job, plan = device.place, device.job, attempt.plan
    settings, tail = place.config.train, place.tail
    stats |= {"policy": attempt.policy, **described(plan), "gradient_captured": device.plans.share(plan)}
    shard = place.shard(job.partition_id)
    _load_(device, plan)
    stats |= _judged(place, shard, "before")
    running = _running(place, plan)
    _compress_(device, plan)
    optimizer = Sgd(
        tail.named_parameters(),
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        slices=layers.slices_of(tail),
        stored=_stored(place, job),
    )
    optimizer.store_()
    parts = {name: part.on(CPU) for name, part in optimizer.slices.items()}
    upload = device.upload((name for name, _ in optimizer.parameters), parts)
    optimizer.local = upload.local
    stepper = Stepper(
        running,
        optimizer,
        micro_batch=plan.micro_batch,
        batch_size=job.resources.batch_size,
        budget_bytes=job.resources.budget_bytes,
        covers=place.config.method.covers,
        # Where ranks depend on the data, micro-batches differ; the largest is recorded.
        side_by_side=place.config.compute.side_by_side and all(m.sized for m in plan.methods.values()),
        update=settings.updates[0] if plan.update is None else plan.update,
        gradients_at=place.config.compute.gradients_at,
        deadline=time.monotonic() + job.deadline_seconds,
        strategy_bytes=upload.held_bytes,
        whole=_whole_step(device, plan),
    )
    notes = _checked(device, stepper, shard) if job.check and stepper.side_by_side else ()
    images = _epochs_(device, stepper, shard)
    tensors = {
        name: _trained_part(parameter, optimizer.slices.get(name)) for name, parameter in optimizer.parameters
    }
    sent, by_kind = upload.finish(tensors, stepper.largest.steps)
    kept = Kept(factors_on(layers.factors(tail), CPU), by_kind)
    uncompress_(tail)
    stats |= {"outcome": "trained", "num_examples": images, **_measured(stepper, optimizer)}
    stats |= {"factors_bytes": factors_bytes(kept.factors), "kept_bytes": kept.nbytes}
    stats |= _judged(place, shard, "after")
    captured = device.plans.captured(plan)
    tensors = named_on(tensors, CPU)
    return LocalResult(stats, tensors, kept.state, captured, notes, sent=sent, slices=parts, plan=plan)


def _stored(place: Workplace, job: Job) -> HalfWeights | None:
    """Return what keeps trained weights in float16 in this round; None where they are float32."""
    if place.config.storage.trained == "float32":
        return None
    return HalfWeights(seeds.derive(place.config.seed, "rounding", job.round, job.partition_id))


def _whole_step(device: _Device, plan: Plan) -> WholeStep | None:
    """Return what counts whole steps, for a device with a RAM or flash limit; None for others."""
    resources = device.job.resources
    if not resources.whole_device:
        return None
    bench = device.plans.bench(resources.batch_size, plan.update)
    return WholeStep(bench, within_of(resources))


def _trained_part(parameter: Tensor, part: Slice | None) -> Tensor:
    return parameter.detach().clone() if part is None else part.of(parameter.detach())


def _running(place: Workplace, plan: Plan) -> nn.Module:
    """Return what runs in a step: the tail, or the tail in segments that are recomputed."""
    if not place.config.method.recipe.recomputes:
        return place.tail
    return Checkpointed.of(place.tail, plan.trained, place.inputs(place.rows(np.zeros(1, np.int64))))


def described(plan: Plan) -> dict[str, Any]:
    """Return the columns that say which plan a device trained under."""
    kinds = sorted({method.kind for method in plan.methods.values()})
    ranks = {name: list(m.mode_ranks) for name, m in plan.methods.items() if m.mode_ranks}
    return {
        "method": "+".join(kinds),
        "planned_bytes": plan.planned_bytes,
        "micro_batch": plan.micro_batch,
        "ranks": ranks,
        "trained_layers": len(plan.trained),
    }


def _measured(stepper: Stepper, optimizer: Sgd) -> dict[str, Any]:
    largest, whole = stepper.largest, stepper.whole
    counted = {} if whole is None else {"ram_bytes": whole.ram_bytes, "flash_bytes": whole.flash_bytes}
    return counted | {
        "measured_bytes": largest.saved_bytes,
        "published_bytes": largest.published_bytes,
        "steps": largest.steps,
        "accumulator_bytes": stepper.accumulator_bytes,
        "optimizer_bytes": optimizer.state_bytes,
        "strategy_bytes": stepper.strategy_bytes,
        "weight_bytes": sum(p.nbytes for p in stepper.tail.parameters()),
    }


def _load_(device: _Device, plan: Plan) -> None:
    """Load the global tensors; those that the plan does not train, as the device stores them."""
    place = device.place
    load_tensors_(place.tail, device.tensors)
    if place.config.storage.form != "float32":
        _compress_(device, plan)  # this sets what trains, down to channels
        store_frozen_(place.tail, place.config.storage.form, place.reference)
        uncompress_(place.tail)


def _compress_(device: _Device, plan: Plan) -> None:
    place, job = device.place, device.job
    seed = seeds.derive(place.config.seed, "layers", job.round, job.partition_id)
    compress_(place.tail, plan, seed=seed, micro_batch=plan.micro_batch)
    warm = {name for name, method in plan.methods.items() if method.warm_start}
    layers.load_factors_(place.tail, {n: f for n, f in device.kept.factors.items() if n in warm})
    training_mode_(place.tail)


def _epochs_(device: _Device, stepper: Stepper, shard: Shard) -> int:
    """Train all steps, or as many as were asked for, and return how many images count for the update.

    These are the images of the shard, or with fewer steps, as many as an epoch used on average.
    """
    place, job = device.place, device.job
    seen, epochs = 0, place.config.train.epochs
    for epoch in range(epochs):
        rng = seeds.rng(place.config.seed, "shuffle", job.round, job.partition_id, epoch)
        order = place.rows(rng.permutation(shard.train))
        for rows in torch.split(order, job.resources.batch_size):
            if job.steps is not None and stepper.largest.steps >= job.steps:
                return max(1, seen // epochs)
            stepper.step_(*place.batch(rows), job.lr)
            seen += len(rows)
    return len(shard.train)


def _checked(device: _Device, stepper: Stepper, shard: Shard) -> tuple[str, ...]:
    """Return a note that compares one side-by-side step with a sequential one, marked where they differ."""
    rows = device.place.rows(shard.train[: device.job.resources.batch_size])
    found = compare(stepper, *device.place.batch(rows))
    text = (
        f"simulation checked on device {device.job.partition_id}: {len(rows)} images in micro-batches of "
        f"{stepper.micro_batch} keep {format_bytes(found.side_by_side_bytes)} each side by side, "
        f"{format_bytes(found.sequential_bytes)} one after another; gradients differ by {found.relative_difference:.0e}"
    )
    return (text if found.agrees else f"WARNING, the simulated step differs from the real one: {text}",)


def _judged(place: Workplace, shard: Shard, when: str) -> dict[str, Any]:
    """Return loss and accuracy on the held-out part of the shard; empty if it has none."""
    if len(shard.holdout) == 0:
        return {}
    found = evaluate(place.tail, *place.batch(place.rows(shard.holdout)), place.num_classes)
    return {f"loss_{when}": found.loss, f"accuracy_{when}": found.accuracy}
