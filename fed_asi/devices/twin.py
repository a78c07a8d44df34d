"""A device's twin: the same device, weights, images and order, without the device's limits, for comparison only.

An "unlimited" twin plans by the run's own method as if the fleet file gave the device `budget = "unlimited"`, and
trains by that plan. All else is the device's own: the weights it was sent, the shard, the order of images and their
resolution, the batch and a pinned micro-batch, when weights move, the warm factors it starts from, the learning rate,
the seeds. The difference between the two is therefore the cost of the budget, without that of the method. A device
without a limit is its own twin. The twin may train the layers of the run's profile: those that some device of the
fleet trains.

A "plain" twin trains the layers that its device trained (or the unlimited twin's, if the device trained none), weights
and biases, by plain training: nothing compressed, centred or left out. The difference is the cost of budget and method
together. It can be non-zero for a device without a limit, too: centred inputs lead to other steps than plain SGD.

A twin runs after the device's own work is complete, and touches none of its state, weights or random draws. A twin
that fails becomes a note.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fed_asi.devices.calibration import plans_for
from fed_asi.devices.job import Job
from fed_asi.devices.warm_factors import WarmFactors
from fed_asi.devices.work import LocalResult, train_locally
from fed_asi.errors import first_line
from fed_asi.fleets.resources import unlimited
from fed_asi.methods import Method, Vanilla
from fed_asi.planning.device_plans import step_of
from fed_asi.planning.plan import Plan
from fed_asi.workplace.place import Workplace

# Outcomes that are due to a budget; any other reason not to train says nothing about it.
PAIRED = {"trained", "out-of-memory", "excluded"}


def with_twin(
    place: Workplace,
    job: Job,
    tensors: Mapping[str, Tensor],
    factors: WarmFactors | None,
    result: LocalResult,
) -> LocalResult:
    """Return the device's result with the columns of its twin; if the twin fails, with a note.

    A device that its budget keeps from training ends with the weights it was sent, so its `before` is filled in, too.
    result: the device's own; only its stats and notes are changed.
    """
    if result.stats["outcome"] not in PAIRED:
        return result
    place = place.seen_by(job.partition_id)
    try:
        twin = _twin(place, job, tensors, factors, result)
        if twin.stats["outcome"] != "trained":
            return _noted(job, result, f"{twin.stats['outcome']}: {twin.stats.get('cause')}")
        return replace(
            result, stats={**result.stats, **_before(result, twin), **paired(result, twin, tensors)}
        )
    except (Exception, SystemExit) as error:  # whatever it is, the device's own update stands
        return _noted(job, result, f"{type(error).__name__}: {first_line(error)}")


def _twin(
    place: Workplace,
    job: Job,
    tensors: Mapping[str, Tensor],
    factors: WarmFactors | None,
    result: LocalResult,
) -> LocalResult:
    """Return the twin's result; where both have the same plan, it is the device's own."""
    free = replace(job, resources=unlimited(job.resources), check=False, twin=None)
    plan = plans_for(place, job.partition_id).first(free.resources)
    if result.plan is not None:
        plan = replace(plan, update=result.plan.update)  # its memory chose that; it is no cost of its budget
    if job.twin == "plain":
        plan = _plain(result.plan or plan)
    update = place.config.train.updates[0]
    if result.plan is not None and step_of(plan, update) == step_of(result.plan, update):
        return result
    return train_locally(place, free, tensors, factors, plan)


def _plain(plan: Plan) -> Plan:
    """Return the plan that trains the same layers and keeps their inputs whole."""
    methods: dict[str, Method] = dict.fromkeys(plan.trained, Vanilla())
    return replace(
        plan, budget_bytes=None, methods=methods, layer_bytes={}, means={}, bases={}, energies={}, notes=()
    )


def _noted(job: Job, result: LocalResult, why: str) -> LocalResult:
    text = f"the twin of device {job.partition_id} failed ({why}); the device's own result is kept"
    return replace(result, notes=(*result.notes, text))


def _before(result: LocalResult, twin: LocalResult) -> dict[str, Any]:
    """Return how good the weights are that both were sent, if the device itself did not judge them."""
    names = {"loss_before", "accuracy_before"} & twin.stats.keys()
    return {name: twin.stats[name] for name in sorted(names - result.stats.keys())}


def paired(result: LocalResult, twin: LocalResult, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the columns of a twin. tensors: the weights that both were sent, by name."""
    found = {"twin_measured_bytes": twin.stats["measured_bytes"]}
    for name in ("loss_after", "accuracy_after"):
        if name in twin.stats:
            found[f"twin_{name}"] = twin.stats[name]
    return found | (compared(result.whole(tensors), twin.whole(tensors), tensors) if result.tensors else {})


def compared(
    own: Mapping[str, Tensor], twins: Mapping[str, Tensor], sent: Mapping[str, Tensor]
) -> dict[str, float | None]:
    """Return the cosine of two updates and the ratio of their norms; None where either is not an update.

    own, twins: the tensors that each trained, by name; a tensor that one did not train counts as unchanged in it. sent:
    what both started from. Equal updates give exactly 1 and 1.
    """
    both = squared = other = 0.0
    for name in sorted(own.keys() | twins.keys()):
        start = sent[name].double()
        mine, its = ((one.get(name, start).double() - start).flatten() for one in (own, twins))
        both += float(torch.dot(mine, its))
        squared += float(torch.dot(mine, mine))
        other += float(torch.dot(its, its))
    scale = (
        math.sqrt(squared * other) if squared * other > 0.0 else 0.0
    )  # not NaN: the root of x * x is x, exactly
    if not 0.0 < scale < math.inf:
        return {"twin_cosine": None, "twin_norm_ratio": None}
    return {"twin_cosine": min(1.0, max(-1.0, both / scale)), "twin_norm_ratio": math.sqrt(squared / other)}
