"""A data set's images by use: the server's public ones, those of the devices, and those for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fed_asi import data
from fed_asi.data.images import Images, select
from fed_asi.data.schemes import Columns
from fed_asi.errors import ConfigError
from fed_asi.fleets.config import RunConfig


@dataclass(frozen=True, slots=True)
class Splits:
    """Images and labels by use; no image has two uses. columns: other values of training images, (N,) by name."""

    public: tuple[Images, Tensor]
    train: tuple[Images, Tensor]
    test: tuple[Images, Tensor]
    columns: Columns = field(default_factory=dict)


def split_images(config: RunConfig, source: data.Dataset) -> Splits:
    """Return the images by use. Raises ConfigError, with all problems, where there are too few."""
    settings = config.data
    problems = list(_problems(config, source))
    if problems:
        raise ConfigError(problems)
    rows = source.split(settings.public, settings.validation, config.seed)
    x, y = source.x_train, torch.from_numpy(source.y_train)
    train = rows.train[: settings.limit]
    if settings.validation:
        tested, judged_x, judged_y = rows.validation, x, y
    else:
        judged_x, judged_y = source.x_test, torch.from_numpy(source.y_test)
        tested = np.arange(len(judged_y))
    tested = tested[: settings.test_limit]
    return Splits(
        (select(x, rows.public), y[rows.public]),
        (select(x, train), y[train]),
        (select(judged_x, tested), judged_y[tested]),
        {column: values[train] for column, values in source.columns.items()},
    )


def _problems(config: RunConfig, source: data.Dataset) -> Iterator[str]:
    """Yield what leaves a use without images."""
    settings, samples, devices = config.data, len(source.y_train), config.num_devices
    left = samples - settings.public - settings.validation
    if left < devices:
        yield (
            f"data: {source.name} has {samples} training images; data.public = {settings.public} and data.validation = "
            f"{settings.validation} leave {max(left, 0)} for {devices} devices, each of which needs one"
        )
    elif settings.limit is not None and settings.limit < devices:
        yield f"data.limit: {settings.limit} training images for {devices} devices, each of which needs one"
    if not settings.validation and not len(source.y_test):
        yield f"data: {source.name} has no test images; set data.validation to evaluate on training images"
