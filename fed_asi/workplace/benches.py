"""Where a run's plans for RAM and flash are measured: on its own trunk and tail, by its own rule of updates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import fx

from fed_asi.compression.by_channels import as_it_runs
from fed_asi.compression.compress import uncompress_
from fed_asi.fleets.aggregate import held_copies
from fed_asi.fleets.config import RunConfig
from fed_asi.layers.copying import copied
from fed_asi.planning.bench import Bench
from fed_asi.planning.plan import Update
from fed_asi.training.rules import rules_of
from fed_asi.training.steps import training_mode_

Benches = Callable[[int, Update], Bench]  # (images in a batch, when weights move) -> bench


def benches_of(config: RunConfig, trunk: fx.GraphModule, tail: fx.GraphModule) -> Benches:
    """Return a function that makes the bench for a batch size and an update; nothing is traced until then.

    trunk, tail: the frozen and the trained part as they were cut, in float32; they are only read. What a device does
    not train is counted in the format in which the run stores it.
    """
    return partial(_bench, config, trunk, tail)


def _bench(
    config: RunConfig, trunk: fx.GraphModule, tail: fx.GraphModule, batch_size: int, update: Update
) -> Bench:
    model = copied(tail).cpu()
    uncompress_(model)  # it may be compressed for a job
    training_mode_(model)
    resolution = config.model.resolution
    # No byte count depends on the images. They are noise, so that no decomposition meets a matrix of rank 0.
    x = torch.randn(batch_size, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(batch_size, dtype=torch.long)
    return Bench(
        model,
        x,
        y,
        rules_of(config.train, batch_size, update),
        trunk=as_it_runs(trunk, config.storage.trunk_by),
        copies=held_copies(config.aggregate, config.upload),
        storage=config.storage.form,
        trained_as=config.storage.trained,
        update=update,
    )
