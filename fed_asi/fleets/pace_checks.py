"""Checks of limits on time: a device held to seconds must have a clock, one held to joules also its power."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.fleet import Device
from fed_asi.fleets.pace import RATES


def asks_time(config: RunConfig) -> bool:
    """Return whether any plan depends on a device's time."""
    keys = ("max_seconds", "max_joules", "quicker")
    owners = (*config.groups, *config.devices)
    return config.method.objective in RATES or any(getattr(one, key) for one in owners for key in keys)


def pace_fits(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    """Yield the limits on time that cannot be computed."""
    if any(place.startswith(("groups", "devices", "budgets", "method")) for place in broken):
        return
    if not asks_time(config):
        return
    rate = RATES.get(config.method.objective or "")
    if rate and config.method.grid == "published":
        yield f'method.objective: "{config.method.objective}" needs selection = "exact", not the papers\' grid'
    try:
        devices = fleet.build(config)
    except ConfigError:  # reported elsewhere
        return
    told: set[str] = set()
    for device in devices:
        for key in _asked(device, rate):
            lacks = _unplanned(device) or _lacks(device, key, rate)
            text = f"{key}: {device.group!r} {lacks}"
            if lacks and text not in told:
                told.add(text)
                yield text


def _asked(device: Device, rate: str | None) -> Iterator[str]:
    """Yield the keys that limit the time of a device."""
    if rate:
        yield "method.objective"
    if device.pace.max_seconds is not None:
        yield "max_seconds"
    if device.pace.max_joules is not None:
        yield "max_joules"
    if device.pace.quicker:
        yield "quicker"


def _unplanned(device: Device) -> str:
    """Return why a device's plans ignore time; empty if they do not."""
    if device.resources.whole_device:
        return "has ram or flash, which cannot be planned with time yet; leave one of them out"
    return ""


def _lacks(device: Device, key: str, rate: str | None) -> str:
    """Return what a device lacks that a key needs; empty if nothing."""
    if key == "quicker":  # without a clock, multiply-accumulates are counted instead
        return ""
    hardware = device.hardware
    if hardware is None or not hardware.has_clock:
        return "has no clock, so the time of its rounds is unknown; give it a device, such as a preset"
    joules = key == "max_joules" or (key == "method.objective" and rate == "joules")
    missing = hardware.lacking_power if joules else []
    if not missing:
        return ""
    return f"does not say {', '.join(missing)}, so its joules are unknown; give its device these, or name a preset"
