"""Makes the work: the fleet file's own images, shards, cohorts and order of images, the same for all simulators."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from same_work import Settings, Work, write
from torch import Tensor, nn
from with_fed_asi import config_of

from fed_asi import data, seeds
from fed_asi.fleets.cohort import sample_cohort
from fed_asi.fleets.config import RunConfig
from fed_asi.workplace.prepare import build_model
from fed_asi.workplace.profiling import batch_of, trained_names
from fed_asi.workplace.splits import split_images
from fed_asi.workplace.start import shards_of


def make(folder: Path, settings: Settings, rounds: int, cohort: int) -> Work:
    """Write the work of some rounds into a folder and return it. settings: `trained` and `cohorts` are set here."""
    clients = range(settings.clients)
    drawn = [sample_cohort(settings.seed, round + 1, clients, cohort) for round in range(rounds)]
    settings = replace(settings, cohorts=tuple(tuple(int(one) for one in ids) for ids in drawn))
    config = config_of(settings, None, "loop")
    source = data.load(settings.source, None if settings.data is None else Path(settings.data))
    splits = split_images(config, source)
    shards = shards_of(config, splits)
    model = build_model(config, source.num_classes, None)
    settle_(model, batch_of(config, splits.public[0]))
    settings = replace(settings, classes=source.num_classes, trained=tuple(trained_names(model, config)))
    orders = [order(config, round, one, shards[one]) for round, ids in enumerate(drawn) for one in ids]
    return write(
        folder,
        settings,
        model,
        (batch_of(config, splits.train[0]), splits.train[1]),
        (batch_of(config, splits.test[0]), splits.test[1]),
        indices=shards.indices,
        offsets=shards.offsets,
        orders=np.concatenate(orders),
        order_offsets=np.cumsum([0, *map(len, orders)]),
    )


def order(config: RunConfig, round: int, client: int, rows: np.ndarray) -> np.ndarray:
    """Return a client's rows in the order in which a run of fed_asi uses them in a round, counted from 0."""
    drawn = [
        seeds.rng(config.seed, "shuffle", round + 1, int(client), epoch).permutation(np.sort(rows))
        for epoch in range(config.train.epochs)
    ]
    return np.concatenate(drawn)


def settle_(model: nn.Module, images: Tensor) -> None:
    """Set the statistics of batch norms, which then stay fixed, to those of some images."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum, norm.training = None, True
        norm.reset_running_stats()
    with torch.inference_mode():
        model(images)
    for norm in norms:
        norm.momentum, norm.training = 0.1, False
