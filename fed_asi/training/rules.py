"""The rules by which weights move in the steps of a run, as the planner of whole devices needs them."""

from __future__ import annotations

from functools import partial
from typing import Any

from fed_asi.fleets.config import TrainConfig
from fed_asi.planning.bench import Rule, RuleAt
from fed_asi.training.at_once import SgdWithParts, at_once


def rules_of(train: TrainConfig, batch_size: int, update: str | None = None) -> RuleAt:
    """Return the rule of a run's steps by micro-batch. update: None: the one that the run's devices try first.

    A batch of several micro-batches accumulates gradients, unless weights move after each of them; with
    `update = "layer"` each layer's gradients are freed as soon as they have been applied.
    """
    update = update or train.updates[0]
    settings: dict[str, Any] = {
        "momentum": train.momentum,
        "weight_decay": train.weight_decay,
        "clip_norm": train.clip_norm,
    }
    momentum = train.momentum > 0
    if update == "layer":
        applied = Rule("applied", mover=partial(at_once, **settings), momentum=momentum)
        return lambda _micro_batch: applied
    optimizer = partial(SgdWithParts, **settings)
    held = Rule("held", optimizer=optimizer, momentum=momentum)
    accumulated = Rule("accumulated", optimizer=optimizer, momentum=momentum)
    several = update == "step"
    return lambda micro_batch: accumulated if several and micro_batch < batch_size else held
