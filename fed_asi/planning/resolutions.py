"""At which resolution a device trains: of those that it may take, the largest at which it has a plan at all.

What a plan captures of the gradient at one resolution does not compare with what another captures at another one, so
nothing is weighed. Fewer pixels cost more accuracy than anything else that makes a plan smaller, so they come last:
docs/explanation/memory_of_a_device.md has what was seen. Where a plan that barely fits would be worth less than a
fuller one at fewer pixels, a fleet file leaves the larger number out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from functools import cache

from fed_asi.errors import BudgetError
from fed_asi.fleets.fleet import Device
from fed_asi.fleets.resources import Resources
from fed_asi.planning.device_plans import DevicePlans

PlansAt = Mapping[int, DevicePlans]  # by resolution, pixels
Phases = tuple[tuple[int, Resources], ...]


def choice_of(device: Device, own: int) -> tuple[int, ...]:
    """Return the resolutions that a device may take, the largest first. own: the model's."""
    return device.resolutions or (own,)


def resolutions_of(devices: Iterable[Device], own: int) -> tuple[int, ...]:
    """Return every resolution that some device may take, and the model's own, the largest first."""
    return tuple(sorted({own}.union(*{device.resolutions for device in devices}), reverse=True))


def taken_by(devices: Iterable[Device], own: int, plans: PlansAt) -> tuple[int, ...]:
    """Return the resolution of each device, in their order; it keeps it through the run.

    It is the largest at which it has a plan in every phase of its schedule, or else in most of them. The smallest of
    a device that has none.
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
    """Return how many devices train at which resolution, for a run's readers; empty where none names one."""
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
    """Return why a device has no plan, neither of its own nor by its fleet's policy; None where it has one."""
    try:
        next(plans.attempts(resources))
    except BudgetError as error:
        return error
    return None


def used_at(devices: Iterable[Device], taken: Iterable[int]) -> dict[int, set[Resources]]:
    """Return what the devices have, in any round, each once, by the resolution that they take."""
    found = dict[int, set[Resources]]()
    seen = set[Hashable]()
    for device, pixels in zip(devices, taken, strict=True):
        if (key := (pixels, device.phases)) not in seen:
            seen.add(key)
            found.setdefault(pixels, set()).update(resources for _, resources in device.phases)
    return found
