"""The devices of a run: who they are, what each may keep, and when that changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fed_asi.errors import ConfigError
from fed_asi.fleets.config import BudgetChange, DeviceConfig, GroupConfig, RunConfig


@dataclass(frozen=True, slots=True)
class Device:
    """One device: its shard's number, its group, and what it may keep for a backward pass."""

    partition_id: int
    group: str
    budget_bytes: int | None  # None: unlimited
    batch_size: int
    micro_batch: int | None  # None: the planner chooses
    schedule: tuple[tuple[int, int | None], ...] = ()  # (from this round, bytes), rounds ascending

    def budget_at(self, round: int) -> int | None:
        """Return the bytes this device may keep in `round` (counted from 1); None is unlimited."""
        budget = self.budget_bytes
        for start, changed in self.schedule:
            if start <= round:
                budget = changed
        return budget


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
    """Return the fleet of a run: groups in order, then one line's budget, then one device's own settings.

    A device with a budget of its own leaves its group's schedule too.
    Raises ConfigError where a line or device names a partition_id no group holds.
    """
    devices: list[Device] = []
    for group in config.groups:
        first = len(devices)
        devices += [_of_group(group, partition_id) for partition_id in range(first, first + group.count)]
    named = [*config.budgets, *(own.partition_id for own in config.devices)]
    outside = sorted(partition_id for partition_id in named if not 0 <= partition_id < len(devices))
    if outside:
        raise ConfigError(f"devices {outside} are not in the fleet, which has 0 to {len(devices) - 1}")
    for partition_id, budget in config.budgets.items():
        devices[partition_id] = _own(
            devices[partition_id], DeviceConfig(partition_id=partition_id, budget=budget)
        )
    for own in config.devices:
        devices[own.partition_id] = _own(devices[own.partition_id], own)
    return Fleet(tuple(devices))


def _of_group(group: GroupConfig, partition_id: int) -> Device:
    return Device(
        partition_id, group.name, group.budget, group.batch_size, group.micro_batch, _changes(group.schedule)
    )


def _own(device: Device, own: DeviceConfig) -> Device:
    batch_size = own.batch_size or device.batch_size
    micro_batch = own.micro_batch or device.micro_batch
    if micro_batch is not None:
        micro_batch = min(micro_batch, batch_size)
    return Device(
        device.partition_id, device.group, own.budget, batch_size, micro_batch, _changes(own.schedule)
    )


def _changes(schedule: tuple[BudgetChange, ...]) -> tuple[tuple[int, int | None], ...]:
    return tuple(sorted((change.round, change.budget) for change in schedule))
