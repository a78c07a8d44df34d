"""What a device has: one frozen `Resources` from the fleet file to the records, and its keys in the file.

To add a resource, touch these places and no others:
1. `Resources`: the field. Its unit is the last word of its name, and None (its default) means no limit.
   Its metadata says whether its key has another name, as `budget` for budget_bytes, and whether it is a limit,
   which a
   device's twin does not have.
2. `ResourceKeys`: the key, with the type that checks its value; None, its default, takes the group's value.
   `problems` checks it against the other keys.
3. `BudgetChange`, only if a schedule changes it from round to round.
4. results/schema.py: its column, last in DeviceRecord and with a default. SCHEMA_VERSION tells tables
   apart, and the store must still read those without the column. A resource that a schedule changes has a
   column in DeviceRoundRecord too.
5. docs/reference/fleet_file.md: a line under groups and under devices.
Fleet, jobs, plans and records pass it on by themselves, as they copy all fields.
tests/fleets/test_resources.py names the place that was forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field as DataclassField
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter

from fed_asi.errors import ConfigError
from fed_asi.fleets.hardware import Hardware
from fed_asi.fleets.section import Bytes, Count, Section, Size
from fed_asi.units import format_bytes

OF_DEVICE = "device"  # as the value of a key: the number of its hardware, such as a preset's
_LATER = ("ram_bytes", "flash_bytes", "reserve_bytes")
_SIZE: TypeAdapter[int | None] = TypeAdapter(Size)


@dataclass(frozen=True, slots=True)
class Resources:
    """What a device has for an optimizer step.

    budget_bytes: what it may keep for its backward pass; None: unlimited. batch_size: examples in one step.
    micro_batch: examples held at once; None: the planner chooses. ram_bytes, flash_bytes: limits for the whole step,
    and for what it only reads; None: not counted. reserve_bytes: RAM set aside for what is not counted.
    """

    budget_bytes: int | None = field(metadata={"key": "budget", "limit": True})
    batch_size: int
    micro_batch: int | None = None
    ram_bytes: int | None = field(default=None, metadata={"key": "ram", "limit": True})
    flash_bytes: int | None = field(default=None, metadata={"key": "flash", "limit": True})
    reserve_bytes: int | None = field(default=None, metadata={"key": "reserve", "limit": True})

    @property
    def whole_device(self) -> bool:
        """Whether the device has a RAM or flash limit, so that its whole step is counted."""
        return self.ram_bytes is not None or self.flash_bytes is not None


def _size_or_device(value: Any) -> Any:
    return value if value == OF_DEVICE else _SIZE.validate_python(value)


SizeOrDevice = Annotated[int | Literal["device"] | None, BeforeValidator(_size_or_device)]


class BudgetChange(Section):
    """From this round on (counted from 1), the budget has this value."""

    round: Count
    budget: Bytes


class ResourceKeys(Section):
    """The keys by which a group or a single device says what it has, and when that changes."""

    budget: Bytes
    batch_size: Count | None = None  # None: the group's
    micro_batch: Count | None = None  # None: the group's, and of a group: the planner chooses
    ram: SizeOrDevice = None  # None: the group's, and of a group: not counted
    flash: SizeOrDevice = None
    reserve: Size = None
    schedule: Annotated[tuple[BudgetChange, ...], Field(strict=False)] = ()


def key_of(one: DataclassField[Any]) -> str:
    """Return the key of the fleet file that a field is read from."""
    return str(one.metadata.get("key", one.name))


def problems(keys: ResourceKeys) -> Iterator[str]:
    """Yield what is wrong between well-formed keys, each line beginning with its key."""
    if keys.micro_batch is not None and keys.batch_size is not None and keys.micro_batch > keys.batch_size:
        yield f"micro_batch: {keys.micro_batch} is more than its batch_size {keys.batch_size}"
    if keys.reserve is not None and isinstance(keys.ram, int) and keys.reserve >= keys.ram:
        yield f"reserve: {format_bytes(keys.reserve)} leaves nothing of its ram {format_bytes(keys.ram)}"


def resources_of(
    keys: ResourceKeys, group: Resources | None = None, hardware: Hardware | None = None
) -> Resources:
    """Return the resources of a group or a device; a device's missing keys are its group's.

    The micro-batch is never larger than the batch, even if only one of them is the device's own.
    hardware: the device's, for keys with the value "device". Raises ConfigError where it has no such number.
    """
    said: dict[str, Any] = {}
    for one in fields(Resources):
        key = key_of(one)
        value = _of_hardware(key, getattr(keys, key), hardware)
        own = group is None or value is not None or ResourceKeys.model_fields[key].is_required()
        said[one.name] = value if own else getattr(group, one.name)
    found = Resources(**said)
    if found.micro_batch is not None and found.micro_batch > found.batch_size:
        return replace(found, micro_batch=found.batch_size)
    return found


def _of_hardware(key: str, value: Any, hardware: Hardware | None) -> Any:
    if value != OF_DEVICE:
        return value
    found = getattr(hardware, f"{key}_bytes", None)
    if found is None:
        raise ConfigError(f'{key}: "{OF_DEVICE}" reads it from device, which says no {key}; give its bytes')
    return found


def schedule_of(keys: ResourceKeys, resources: Resources) -> tuple[tuple[int, Resources], ...]:
    """Return (first round, resources from then on) for every change of a schedule, rounds ascending."""
    changes = sorted(keys.schedule, key=lambda change: change.round)
    return tuple((change.round, _changed(resources, change)) for change in changes)


def _changed(resources: Resources, change: BudgetChange) -> Resources:
    new = {one.name: getattr(change, key_of(one)) for one in _scheduled()}
    return replace(resources, **new)


def unlimited(resources: Resources) -> Resources:
    """Return the same device without limits; settings such as a pinned micro-batch stay."""
    none: dict[str, Any] = {one.name: None for one in fields(Resources) if one.metadata.get("limit")}
    return replace(resources, **none)


def said(resources: Resources) -> dict[str, Any]:
    """Return the resources as a job has them: fields newer than its format appear only if they are set."""
    every = {one.name: getattr(resources, one.name) for one in fields(Resources)}
    return {name: value for name, value in every.items() if value is not None or name not in _LATER}


def of_one_round(resources: Resources) -> dict[str, Any]:
    """Return what may change from round to round, by column of a device's round."""
    return {one.name: getattr(resources, one.name) for one in _scheduled()}


def _scheduled() -> list[DataclassField[Any]]:
    return [one for one in fields(Resources) if key_of(one) in BudgetChange.model_fields]
