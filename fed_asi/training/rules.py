"""What becomes of gradients in the steps of a run: what the planner of whole devices asks of training."""

from __future__ import annotations

from functools import partial
from typing import Any

from fed_asi.fleets.config import TrainConfig
from fed_asi.planning.bench import Rule, RuleAt
from fed_asi.training.at_once import at_once
from fed_asi.training.sgd import Sgd


def rules_of(train: TrainConfig, batch_size: int, update: str | None = None) -> RuleAt:
    """Return the rule of a run's steps by micro-batch. update: None: what the run's devices do first.

    A batch of several micro-batches accumulates gradients, unless weights move after each of them; with
    `update = "layer"` each layer's go as soon as they are there.
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
    optimizer = partial(Sgd, **settings)
    held = Rule("held", optimizer=optimizer, momentum=momentum)
    accumulated = Rule("accumulated", optimizer=optimizer, momentum=momentum)
    several = update == "step"
    return lambda micro_batch: accumulated if several and micro_batch < batch_size else held
