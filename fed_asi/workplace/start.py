"""Checks before the long part of a run (pretraining, features, rounds): all that can be known by then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.data import shards as sharding
from fed_asi.data.images import FileImages, Images, SelectedImages
from fed_asi.data.shards import Shards
from fed_asi.errors import ConfigError, FedAsiError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.sharding import scheme_of
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.methods import Vanilla
from fed_asi.planning.resolutions import resolutions_of
from fed_asi.workplace.profiling import trained_names
from fed_asi.workplace.splits import Splits
from fed_asi.workplace.storing import check_storage


def check_start(config: RunConfig, splits: Splits, model: nn.Module, num_classes: int) -> Shards:
    """Return the devices' shards, having checked settings, images and network against each other.

    model: as built, before any training; it is run on one image. Raises ConfigError with all problems at once.
    """
    made: list[Shards] = []
    _all_of(
        lambda: made.append(check_images(config, splits)),
        lambda: check_network(config, model, num_classes),
    )
    return made[0]


def check_images(config: RunConfig, splits: Splits) -> Shards:
    """Return the devices' shards, having checked images and settings against each other.

    Raises ConfigError with all problems at once.
    """
    made: list[Shards] = []

    def micro_batches() -> None:
        if problems := list(_unheld_micro_batches(config, splits, made)):
            raise ConfigError(problems)

    _all_of(
        lambda: made.append(shards_of(config, splits)),
        micro_batches,
        *(partial(_check_files, images) for images in (splits.public[0], splits.train[0], splits.test[0])),
    )
    return made[0]


def _all_of(*checks: Callable[[], object]) -> None:
    """Run every check. Raises ConfigError with the problems of all."""
    problems: list[str] = []
    for check in checks:
        try:
            check()
        except FedAsiError as error:
            problems.extend(error.problems if isinstance(error, ConfigError) else [str(error)])
    if problems:
        raise ConfigError(problems)


def shards_of(config: RunConfig, splits: Splits) -> Shards:
    """Return which training image is on which device. Raises ConfigError where they cannot be divided so."""
    try:
        scheme = scheme_of(config.sharding)
        return sharding.make(splits.train[1].numpy(), config.num_devices, scheme, config.seed, splits.columns)
    except ConfigError as error:
        raise ConfigError(
            [f"sharding: {problem.removeprefix('sharding: ')}" for problem in error.problems]
        ) from error


def _check_files(images: Images) -> None:
    if isinstance(images, (FileImages, SelectedImages)):
        images.check()


def check_network(config: RunConfig, model: nn.Module, num_classes: int) -> None:
    """Raise an error where the network cannot be run, cut or trained as asked; no seed matters here."""
    resolution = config.model.resolution
    for pixels in resolutions_of(fleet.build(config), resolution):
        models.check_takes(model, config.model.name, num_classes, pixels)
    trained = trained_names(model, config)
    _check_layers(model, trained)
    if (
        config.model.weights == "public" or config.storage.frozen != "float32"
    ):  # otherwise the cut itself comes next
        trunk, _ = cut.cut(model, trained, torch.zeros(1, 3, resolution, resolution))
        check_storage(config, trunk)


def _check_layers(model: nn.Module, trained: Sequence[str]) -> None:
    """Raise ConfigError for the layers to train that no method can keep."""
    owners = {name.rpartition(".")[0] for name in trained} | set(trained)
    refused = []
    for name, module in model.named_modules():
        kind = weight_kind_of(module)
        reason = kind.unsupported(module, Vanilla()) if kind is not None and name in owners else None
        if reason is not None:
            refused.append(f"method.layers: {name}: {reason}; leave the layer out")
    if refused:
        raise ConfigError(refused)


def _unheld_micro_batches(config: RunConfig, splits: Splits, made: Sequence[Shards]) -> Iterator[str]:
    """Yield why no plan can have the micro-batch that some devices pin: calibration has fewer images."""
    pinned = _pinned(config)
    if not pinned:
        return
    method, public = config.method, len(splits.public[1])
    images, largest = min(method.calibration_images, public), max(pinned.values())
    if largest > images:
        few = "data.public" if public < largest else "method.calibration_images"
        both = " and method.calibration_images" if public < largest > method.calibration_images else ""
        yield (
            f"micro_batch: {_devices(pinned, images)} {largest} examples at once, but plans know no more than the "
            f"{images} images of the calibration; set {few}{both} to {largest} or more, or a smaller micro_batch"
        )
    if method.calibration == "server" or not made:
        return
    sizes = np.minimum(_own_images(config, made[0]), method.calibration_images)
    if method.calibration == "federated":
        sizes = np.full_like(sizes, sizes.max())
    few_of = {i: size for i, size in pinned.items() if size > sizes[i]}
    if few_of and largest <= images:
        worst = min(few_of, key=lambda i: (int(sizes[i]), i))
        yield (
            f'method.calibration: "{method.calibration}", but {len(few_of)} devices have fewer images to calibrate on '
            f"than the micro_batch that they pin (device {worst}: {sizes[worst]} of {few_of[worst]}); set a higher "
            'sharding.minimum or method.calibration_images, a smaller micro_batch, or calibrate on the "server"'
        )


def _pinned(config: RunConfig) -> dict[int, int]:
    """Return the largest micro-batch that a device pins in any round, by partition_id, of those that do."""
    found = {}
    for device in fleet.build(config):
        sizes = [resources.micro_batch for _, resources in device.phases if resources.micro_batch is not None]
        if sizes:
            found[device.partition_id] = max(sizes)
    return found


def _devices(pinned: dict[int, int], images: int) -> str:
    above = [i for i, size in pinned.items() if size > images]
    return (
        f"device {above[0]} holds"
        if len(above) == 1
        else f"{len(above)} devices (first {above[0]}) hold up to"
    )


def _own_images(config: RunConfig, shards: Shards) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return how many images each device trains on, (devices,), its holdout left out."""
    held = np.minimum((shards.sizes * config.data.holdout).astype(np.int64), shards.sizes - 1)
    return np.asarray(shards.sizes - held, dtype=np.int64)
