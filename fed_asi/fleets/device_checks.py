"""Checks of devices' hardware and presence: known, complete, and with somebody present at some time."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator

import numpy as np

from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.attendance import Attendance
from fed_asi.fleets.config import DeviceConfig, GroupConfig, RunConfig
from fed_asi.fleets.device_keys import HardwareConfig, PresenceConfig
from fed_asi.fleets.device_tables import Row, read_table
from fed_asi.fleets.drawing import base_of
from fed_asi.fleets.hardware import CLOCK
from fed_asi.fleets.traces import read_traces


def devices_known(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    """Yield problems of presets, tables and traces, then of a fleet whose clock stands or that is always empty."""
    problems = [f"{where}.{one}" for where, owner in _owners(config) for one in _of_owner(owner)]
    yield from problems
    if not problems and not any(place.startswith(("groups", "devices", "budgets")) for place in broken):
        yield from _together(config)


def _owners(config: RunConfig) -> Iterator[tuple[str, GroupConfig | DeviceConfig]]:
    yield from ((f"groups[{i}]", group) for i, group in enumerate(config.groups))
    yield from ((f"devices[{i}]", device) for i, device in enumerate(config.devices))


def _of_owner(owner: GroupConfig | DeviceConfig) -> Iterator[str]:
    if owner.device is not None:
        yield from (f"device{problem}" for problem in _problems(owner.device))
    if owner.presence is not None:
        yield from (f"presence.{problem}" for problem in _presence(owner.presence))


def _presence(presence: PresenceConfig) -> Iterator[str]:
    if presence.kind == "trace" and presence.trace is None:
        yield 'trace: missing; kind = "trace" reads its intervals from a file'
    elif presence.kind != "trace" and presence.trace is not None:
        yield f'trace: only for kind = "trace"; it is "{presence.kind}"'
    elif presence.trace is not None:
        try:
            read_traces(presence.trace)
        except ConfigError as error:
            yield from (f"trace: {problem}" for problem in error.problems)
    if presence.kind == "daily" and presence.from_hour == presence.until_hour:
        yield f"until_hour: {presence.until_hour:g}, like from_hour, so the device is never present; all day is 0 to 24"


def _together(config: RunConfig) -> Iterator[str]:
    """Yield problems that only the whole fleet shows."""
    told = [
        one for _, owner in _owners(config) if (one := owner.presence) is not None and one.kind != "always"
    ]
    if not told:
        return
    try:
        devices = fleet.build(config)
    except ConfigError:  # reported elsewhere
        return
    if not any(device.hardware is not None and device.hardware.has_clock for device in devices):
        yield "presence: no device has a clock, so no time passes; give them a device, such as a preset"
    elif (
        Attendance((device.presence for device in devices), config.seed).first(np.zeros(len(devices)))
        == math.inf
    ):
        yield "presence: with this seed no device is ever present; give other traces or a larger share"


def _problems(device: HardwareConfig) -> Iterator[str]:
    rows: tuple[Row, ...] = ()
    try:
        if device.table is not None:
            rows = read_table(device.table)
    except ConfigError as error:
        yield from (f".table: {problem}" for problem in error.problems)
        return
    try:
        base = base_of(device)
    except ConfigError as error:
        yield from (f".preset: {problem}" for problem in error.problems)
        return
    if base.battery_joules is not None and None in (base.compute_watts or base.mac_joules, base.radio_watts):
        yield ".battery_joules: nothing uses it; give compute_watts and radio_watts too"
    lacks = [[key for key in base.missing if key not in row.numbers] for row in rows or (Row({}),)]
    if all(len(one) == len(CLOCK) for one in lacks):
        return  # it does not ask for a clock
    for number, one in enumerate(lacks, start=1):
        if one:
            where = f".table: its device {number} lacks " if rows else ": lacks "
            yield f"{where}{', '.join(one)}, without which it has no clock; add them, or name a preset"
            return
