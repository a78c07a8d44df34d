"""The devices of a run: who they are, what each has, and when that changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from fed_asi.errors import ConfigError
from fed_asi.fleets.config import DeviceConfig, GroupConfig, RunConfig
from fed_asi.fleets.device_keys import PresenceConfig
from fed_asi.fleets.drawing import draw, draw_all
from fed_asi.fleets.hardware import Hardware
from fed_asi.fleets.pace import ANY_PACE, Pace, pace_of
from fed_asi.fleets.resources import OF_DEVICE, Resources, resources_of, schedule_of


@dataclass(frozen=True, slots=True)
class Device:
    """One device: the number of its shard, its group, and what it has for a step.

    schedule: (first round, what it has from then on), rounds ascending and counted from 1.
    hardware: what it has besides memory; None: it has no clock. presence: when it is present; None: always. pace:
    limits on the time and energy of its rounds. resolutions: those at which it may train, the largest first; empty:
    the model's alone.
    """

    partition_id: int
    group: str
    resources: Resources
    schedule: tuple[tuple[int, Resources], ...] = ()
    hardware: Hardware | None = None
    presence: PresenceConfig | None = None
    pace: Pace = ANY_PACE
    resolutions: tuple[int, ...] = ()

    def resources_at(self, round: int) -> Resources:
        """Return what this device has in `round`, counted from 1."""
        return [resources for start, resources in self.phases if start <= round][-1]

    @property
    def phases(self) -> tuple[tuple[int, Resources], ...]:
        """(first round, what the device has from then on); the first entry is what it begins with."""
        return ((1, self.resources), *self.schedule)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All devices, in order of partition_id, which counts from 0."""

    devices: tuple[Device, ...]

    def __len__(self) -> int:
        return len(self.devices)

    def __iter__(self) -> Iterator[Device]:
        return iter(self.devices)

    def __getitem__(self, partition_id: int) -> Device:
        return self.devices[partition_id]

    @property
    def partition_ids(self) -> range:
        """Every device's number."""
        return range(len(self.devices))

    def groups(self) -> dict[str, list[Device]]:
        """Return each group's devices, groups in the fleet file's order."""
        grouped: dict[str, list[Device]] = {}
        for device in self.devices:
            grouped.setdefault(device.group, []).append(device)
        return grouped


def build(config: RunConfig) -> Fleet:
    """Return the fleet of a run. Groups are applied first, then [budgets], then settings of single devices.

    A device with a budget of its own does not follow its group's schedule.
    Raises ConfigError where a partition_id is in no group, and for a device's file that cannot be read.
    """
    devices: list[Device] = []
    for group in config.groups:
        devices += _of_group(group, len(devices), config.seed)
    named = [*config.budgets, *(own.partition_id for own in config.devices)]
    outside = sorted(partition_id for partition_id in named if not 0 <= partition_id < len(devices))
    if outside:
        raise ConfigError(f"devices {outside} are not in the fleet, which has 0 to {len(devices) - 1}")
    lines = [DeviceConfig(partition_id=one, budget=budget) for one, budget in config.budgets.items()]
    groups = {group.name: group for group in config.groups}
    for own in (*lines, *config.devices):
        device = devices[own.partition_id]
        devices[own.partition_id] = _own(device, _as_its_group(own, groups[device.group]), config.seed)
    return Fleet(tuple(devices))


def _of_group(group: GroupConfig, first: int, seed: int) -> Iterator[Device]:
    ids = range(first, first + group.count)
    pace = pace_of(group)
    drawn = itertools.repeat(None) if group.device is None else draw_all(group.device, seed, ids)
    of_device = OF_DEVICE in (group.ram, group.flash)
    resources: Resources | None = None
    schedule: tuple[tuple[int, Resources], ...] = ()
    for partition_id, hardware in zip(ids, drawn, strict=False):
        if resources is None or of_device:
            resources = resources_of(group, None, hardware)
            schedule = schedule_of(group, resources)
        yield Device(
            partition_id,
            group.name,
            resources,
            schedule,
            hardware,
            group.presence,
            pace,
            group.resolution or (),
        )


def _as_its_group(own: DeviceConfig, group: GroupConfig) -> DeviceConfig:
    """Return a device's keys; where the group says "device" and this device is another one, so do they."""
    keys = [] if own.device is None else [key for key in ("ram", "flash") if getattr(own, key) is None]
    return own.model_copy(update={key: OF_DEVICE for key in keys if getattr(group, key) == OF_DEVICE})


def _own(device: Device, own: DeviceConfig, seed: int) -> Device:
    hardware = device.hardware if own.device is None else draw(own.device, seed, device.partition_id)
    resources = resources_of(own, device.resources, hardware)
    return Device(
        device.partition_id,
        device.group,
        resources,
        schedule_of(own, resources),
        hardware,
        own.presence or device.presence,
        pace_of(own, device.pace),
        own.resolution or device.resolutions,
    )
