"""The resolution at which a device trains: the largest of its allowed ones at which it has a plan.

Shares of gradient captured at different resolutions cannot be compared, so they are not weighed against each other.
Fewer pixels cost more accuracy than any other way to make a plan smaller, so they come last; for measurements see
docs/explanation/memory_of_a_device.md. If a fuller plan at fewer pixels is wanted in place of one that barely fits, a
fleet file leaves out the larger resolution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from functools import cache

from fed_asi.errors import BudgetError
from fed_asi.fleets.fleet import Device
from fed_asi.fleets.resources import Resources
from fed_asi.planning.device_plans import DevicePlans

PlansAt = Mapping[int, DevicePlans]  # by resolution in pixels
Phases = tuple[tuple[int, Resources], ...]


def choice_of(device: Device, own: int) -> tuple[int, ...]:
    """Return the resolutions that a device may use, the largest first. own: the model's."""
    return device.resolutions or (own,)


def resolutions_of(devices: Iterable[Device], own: int) -> tuple[int, ...]:
    """Return every resolution that some device may use, and the model's own, the largest first."""
    return tuple(sorted({own}.union(*{device.resolutions for device in devices}), reverse=True))


def taken_by(devices: Iterable[Device], own: int, plans: PlansAt) -> tuple[int, ...]:
    """Return the resolution of each device, in their order; it is fixed for the run.

    It is the largest resolution at which the device has a plan in every phase of its schedule, or else in the most
    phases. A device without any plan gets its smallest.
    """

    @cache
    def taken(choice: tuple[int, ...], phases: Phases) -> int:
        return _largest(choice, phases, plans) if len(choice) > 1 else choice[0]

    return tuple(taken(choice_of(device, own), device.phases) for device in devices)


def _largest(choice: tuple[int, ...], phases: Phases, plans: PlansAt) -> int:
    planned = dict[int, int]()
    for pixels in choice:
        planned[pixels] = sum(why_none(plans[pixels], resources) is None for _, resources in phases)
        if planned[pixels] == len(phases):
            return pixels
    best = max(choice, key=lambda pixels: planned[pixels])
    return best if planned[best] else choice[-1]


def resolution_note(devices: Iterable[Device], own: int, taken: Iterable[int]) -> str:
    """Return a note on how many devices train at which resolution; empty if no device sets one."""
    named = [pixels for device, pixels in zip(devices, taken, strict=True) if device.resolutions]
    if not named:
        return ""
    counts = sorted(Counter(named).items(), reverse=True)
    said = " and ".join(f"{count} at {pixels} x {pixels}" for pixels, count in counts)
    return (
        f"resolution: of the devices that name theirs {said} pixels, the largest of theirs at which they have a plan; "
        f"the server judges at {own} x {own}"
    )


def why_none(plans: DevicePlans, resources: Resources) -> BudgetError | None:
    """Return the BudgetError of a device that has no plan, of its own or by its policy; None if it has one."""
    try:
        next(plans.attempts(resources))
    except BudgetError as error:
        return error
    return None


def used_at(devices: Iterable[Device], taken: Iterable[int]) -> dict[int, set[Resources]]:
    """Return the devices' resources in all rounds, each once, by the resolution at which they train."""
    found = dict[int, set[Resources]]()
    seen = set[Hashable]()
    for device, pixels in zip(devices, taken, strict=True):
        if (key := (pixels, device.phases)) not in seen:
            seen.add(key)
            found.setdefault(pixels, set()).update(resources for _, resources in device.phases)
    return found
