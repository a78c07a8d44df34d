"""What devices' hardware and presence must be: known, whole, and such that somebody is there."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fed_asi.errors import ConfigError
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.device_keys import HardwareConfig
from fed_asi.fleets.device_tables import read_table
from fed_asi.fleets.drawing import base_of
from fed_asi.fleets.hardware import CLOCK


def devices_known(config: RunConfig, _broken: Collection[str], _cpus: int) -> Iterator[str]:
    """Yield presets and tables that are not there, and devices that say a part of what a clock needs."""
    owners = [(f"groups[{i}]", one) for i, one in enumerate(config.groups)]
    owners += [(f"devices[{i}]", one) for i, one in enumerate(config.devices)]  # type: ignore[misc]
    for where, owner in owners:
        if owner.device is not None:
            yield from (f"{where}.device{problem}" for problem in _problems(owner.device))


def _problems(device: HardwareConfig) -> Iterator[str]:
    given: set[str] = set()
    try:
        if device.table is not None:
            given = {key for row in read_table(device.table) for key in row.numbers}
    except ConfigError as error:
        yield from (f".table: {problem}" for problem in error.problems)
        return
    try:
        base = base_of(device)
    except ConfigError as error:
        yield from (f".preset: {problem}" for problem in error.problems)
        return
    lacks = [key for key in base.missing if key not in given]
    if lacks and len(lacks) < len(CLOCK):
        yield f": {', '.join(lacks)} missing, without which it has no clock; add them, or name a preset"
