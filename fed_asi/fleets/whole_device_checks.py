"""Checks of devices with a RAM or flash limit: all that they need must be countable."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fed_asi.errors import ConfigError
from fed_asi.fleets.config import DeviceConfig, GroupConfig, RunConfig
from fed_asi.fleets.drawing import draw
from fed_asi.fleets.resources import OF_DEVICE, resources_of
from fed_asi.methods import recipe_names


def whole_devices(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    """Yield what is wrong with ram, flash and reserve, and what cannot be counted if one of them is given."""
    if not config.groups or any(place.startswith(("groups", "devices")) for place in broken):
        return
    owners: list[tuple[str, GroupConfig | DeviceConfig]] = [
        *((f"groups[{i}]", group) for i, group in enumerate(config.groups)),
        *((f"devices[{i}]", device) for i, device in enumerate(config.devices)),
    ]
    named = [(where, owner) for where, owner in owners if owner.ram is not None or owner.flash is not None]
    for where, owner in owners:
        yield from (f"{where}.{problem}" for problem in _of_device(config, owner))
    if not named:
        return
    first = named[0][0]
    if config.method.covers != "saved":
        yield (
            f'method.covers: "{config.method.covers}", but {first} names ram or flash, which count the whole step; '
            'leave covers at "saved", which is what budget then limits'
        )
    if config.method.name in recipe_names() and config.method.recipe.recomputes:
        name = config.method.name
        yield f'method.name: "{name}" computes parts of a step twice, which ram ({first}) cannot count yet'


def _of_device(config: RunConfig, owner: GroupConfig | DeviceConfig) -> Iterator[str]:
    """Yield keys with the value "device" for which there is no number; a table may have it, so one device is drawn."""
    if OF_DEVICE not in (owner.ram, owner.flash):
        return
    device, one = owner.device, 0
    if isinstance(owner, DeviceConfig):
        one = owner.partition_id
        device = device or _group_of(config, one).device
    try:
        hardware = None if device is None else draw(device, config.seed, one)
        resources_of(owner.model_copy(update={"batch_size": owner.batch_size or 1}), None, hardware)
    except ConfigError as error:
        yield from (
            one for one in error.problems if one.startswith(("ram", "flash"))
        )  # others are reported elsewhere


def _group_of(config: RunConfig, partition_id: int) -> GroupConfig:
    """Return the group of a device; the last group for a device that is in none, which is reported elsewhere."""
    first = 0
    for group in config.groups:
        first += group.count
        if partition_id < first:
            return group
    return config.groups[-1]
