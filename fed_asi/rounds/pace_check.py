"""Checks, before the first round, whether devices can do a round in the time that they may take."""

from __future__ import annotations

from collections.abc import Iterable

from fed_asi.devices.calibration import plans_for
from fed_asi.errors import BudgetError, ConfigError, SlowPlanError
from fed_asi.fleets.fleet import Device, Fleet
from fed_asi.fleets.pace_checks import asks_time
from fed_asi.workplace.place import Workplace


def check_pace(place: Workplace, fleet: Fleet) -> list[str]:
    """Return a note for every group whose device with the fewest images has no plan within its time.

    Raises ConfigError, with the cause in each group, where no device of the fleet has one.
    """
    if not asks_time(place.config):
        return []
    causes = {}
    for group, devices in fleet.groups().items():
        fewest = min(devices, key=lambda one: len(place.shards[one.partition_id]))
        cause = _too_slow(place, fewest)
        if cause is not None:
            causes[group] = f"{group}: device {fewest.partition_id}, of fewest images, has no plan: {cause}"
    if len(causes) == len(fleet.groups()) and _nobody(place, fleet):
        raise ConfigError(list(causes.values()))
    return list(causes.values())


def _nobody(place: Workplace, devices: Iterable[Device]) -> bool:
    return all(_too_slow(place, device) is not None for device in devices)


def _too_slow(place: Workplace, device: Device) -> str | None:
    """Return why no plan of a device is within its time, whatever else it tries; None where one is."""
    cause, place = None, place.seen_by(device.partition_id)
    for _, resources in device.phases:
        try:
            next(plans_for(place, device.partition_id).attempts(resources))
            return None
        except SlowPlanError as error:
            cause = str(error)
        except BudgetError:  # of memory, which is no mistake
            return None
    return cause
