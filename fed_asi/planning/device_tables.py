"""What to compare a whole-device plan with: what binds it, what 16 KiB more would buy, and what simpler ways reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fed_asi.errors import BudgetError, ConfigError
from fed_asi.memory.device import DeviceMemory
from fed_asi.planning.columns import columns
from fed_asi.planning.device_search import DevicePlan
from fed_asi.planning.profile import Profile
from fed_asi.planning.rivals import captured_share
from fed_asi.planning.whole_device import DevicePlanner, best_of
from fed_asi.planning.within import Within
from fed_asi.units import format_bytes

MORE = 16 * 1024  # bytes of RAM or of flash, to show what more memory would buy
_GAIN = 1e-9  # of a plan's value: a smaller gain is rounding


@dataclass(frozen=True, slots=True)
class Way:
    """A simpler way to plan a device, and its plan. found: None if nothing fits or the profile lacks its forms.

    why: the reason, if there is no plan.
    """

    name: str
    found: DevicePlan | None
    why: str = ""


def more_of_each(
    planners: Sequence[DevicePlanner], within: Within, micro_batch: int | None = None
) -> dict[str, DevicePlan]:
    """Return the best plans with 16 KiB more RAM and with 16 KiB more flash, each only if it is limited."""
    found = {}
    for name, key in (("RAM", "ram_bytes"), ("flash", "flash_bytes")):
        size = getattr(within, key)
        if size is not None:
            found[name] = best_of(planners, replace(within, **{key: size + MORE}), micro_batch)
    return found


def simpler_ways(
    planners: Sequence[DevicePlanner], within: Within, micro_batch: int | None = None
) -> Iterator[Way]:
    """Yield what simpler ways reach on the device: head, biases, last layers whole, and fixed channels.

    planners: those of the plan to compare with, for the same updates and storage formats.
    """
    question = planners[0].question
    profile = question.profile

    def best(name: str, options: dict[str, Any]) -> Way:
        options |= {"objective": question.objective, "centered": question.centered}
        try:
            simpler = [DevicePlanner(profile, one.bench, **options) for one in planners]
            return Way(name, best_of(simpler, within, micro_batch))
        except BudgetError as error:
            return Way(name, None, "does not fit: " + str(error).split(", ")[0].split(": ")[0])
        except ConfigError:
            return Way(name, None, "not in this profile")

    yield best("head only", {"methods": ("vanilla",), "layers": "last 0"})
    yield best("biases", {"methods": ("bias",)})
    last = best("last layer whole", {"methods": ("vanilla",), "layers": "last 1"})
    for count in range(2, sum(not layer.head for layer in profile.layers) + 1):
        more = best(f"last {count} layers whole", {"methods": ("vanilla",), "layers": f"last {count}"})
        if more.found is None:
            break
        last = more
    yield last
    yield best("biases and fixed channels", {"methods": ("bias", "channels")})


def device_text(
    planners: Sequence[DevicePlanner],
    within: Within,
    found: DevicePlan,
    micro_batch: int | None = None,
    width: int | None = None,
) -> str:
    """Return text for people: what binds a device's best plan, and the table of comparisons. width: see `columns`."""
    profile, more = planners[0].question.profile, more_of_each(planners, within, micro_batch)
    ways = [Way("this plan", found)]
    ways += [Way(f"with 16 KiB more {name}", one) for name, one in more.items()]
    ways += simpler_ways(planners, within, micro_batch)
    rows: list[tuple[str, ...]] = [
        ("on this device", "gradient captured", "RAM", "flash", "micro-batch", "layers")
    ]
    rows += [_row(one, profile) for one in ways]
    return f"{_binding(within, found, more)}\n\n{columns(rows, width)}"


def _binding(within: Within, found: DevicePlan, more: dict[str, DevicePlan]) -> str:
    """Return which of RAM and flash limits the plan, with what is left of each."""
    least = found.plan.value + _GAIN * max(1.0, abs(found.plan.value))
    names = [name for name, one in more.items() if one.plan.value > least]
    if not names:
        return "With 16 KiB more of RAM or flash, the best plan would capture no more."
    texts = [_left(name, within, found.memory) for name in names]
    return f"What binds: {'; and '.join(texts)}."


def _left(name: str, within: Within, memory: DeviceMemory) -> str:
    if name == "flash":
        left = (within.flash_bytes or 0) - memory.flash_bytes
        return f"flash, {format_bytes(memory.flash_bytes)} read-only, {format_bytes(left)} free"
    left = (within.ram_bytes or 0) - memory.ram_bytes
    phase = max(memory.trunk_bytes, memory.step.bytes)
    return (
        f"RAM, in the {memory.phase}: {format_bytes(memory.static_bytes)} static and {format_bytes(phase)} transient, "
        f"{format_bytes(left)} free"
    )


def _row(way: Way, profile: Profile) -> tuple[str, ...]:
    if way.found is None:
        return way.name, way.why, "", "", "", ""
    plan, memory = way.found.plan, way.found.memory
    return (
        way.name,
        f"{captured_share(plan, profile):.1%}",
        format_bytes(memory.ram_bytes),
        format_bytes(memory.flash_bytes),
        str(plan.micro_batch),
        str(len(plan.methods)),
    )
