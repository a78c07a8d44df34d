"""The hardware of each device: numbers of the preset and its own, a row of a table, a random spread, all by seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from fed_asi import seeds
from fed_asi.fleets import hardware
from fed_asi.fleets.device_keys import HardwareConfig
from fed_asi.fleets.device_tables import Row, read_table
from fed_asi.fleets.hardware import RATES, Hardware

_LINK = ("down_bits_per_second", "up_bits_per_second")
_SLOWEST = 0.05  # share of the mean: the least that a normally distributed link may be


def base_of(config: HardwareConfig) -> Hardware:
    """Return what all devices of a description have in common. Raises ConfigError for an unknown preset."""
    found = Hardware() if config.preset is None else hardware.preset(config.preset).hardware
    return found.with_numbers(config.numbers)


def draw(config: HardwareConfig, seed: int, partition_id: int) -> Hardware:
    """Return a device's hardware, a pure function of description, seed and device.

    Raises ConfigError for an unknown preset and an unreadable table.
    """
    (found,) = draw_all(config, seed, [partition_id])
    return found


def draw_all(config: HardwareConfig, seed: int, partition_ids: Iterable[int]) -> Iterator[Hardware]:
    """Yield the hardware of several devices that share a description, as `draw` returns it."""
    base = base_of(config)
    alike = config.table is None and config.spread == 0.0
    for one in partition_ids:
        yield base if alike else _of_one(base, config, seed, one)


def _of_one(found: Hardware, config: HardwareConfig, seed: int, partition_id: int) -> Hardware:
    rng = seeds.rng(seed, "device", partition_id)
    if config.table is not None:
        rows = read_table(config.table)
        row = rows[int(rng.integers(len(rows)))]
        found = _faster(found, row.speed, RATES, _LINK).with_numbers(_drawn(row, rng))
    compute, link = (math.exp(config.spread * float(rng.standard_normal())) for _ in range(2))
    return _faster(_faster(found, compute, RATES, _LINK), link, _LINK, ())


def _drawn(row: Row, rng: Any) -> dict[str, Any]:
    """Return a row's numbers; those with a deviation are drawn, never below a share of the mean."""
    found = dict(row.numbers)
    for key, deviation in row.deviations.items():
        drawn = found[key] + deviation * float(rng.standard_normal())
        found[key] = max(drawn, _SLOWEST * found[key])
    return found


def _faster(found: Hardware, times: float, keys: tuple[str, ...], but: tuple[str, ...]) -> Hardware:
    """Return hardware with rates `times` as high, and the cost of calls divided by it."""
    if times == 1.0:
        return found
    changed = {
        key: rate * times for key in keys if key not in but and (rate := getattr(found, key)) is not None
    }
    if "dense_per_second" in keys and found.call_seconds is not None:
        changed["call_seconds"] = found.call_seconds / times
    return replace(found, **changed)
