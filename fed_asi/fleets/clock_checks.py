"""Checks of [clock] against the fleet: a device held to a deadline must have a clock."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from fed_asi.errors import ConfigError
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.drawing import draw


def clock_fits(config: RunConfig, broken: Collection[str], _cpus: int) -> Iterator[str]:
    """Yield what is impossible in [clock]."""
    clock = config.clock
    if any(place.startswith(("clock", "groups", "devices", "cohort")) for place in broken):
        return
    if clock.fit and clock.deadline_seconds is None:
        yield "clock.fit: needs clock.deadline_seconds, which the work is cut to fit"
    if clock.among == "all" and clock.deadline_seconds is None:
        yield 'clock.among: "all" also asks absent devices, so a round needs clock.deadline_seconds to end'
    if clock.ask is not None and clock.ask < config.cohort:
        yield f"clock.ask: {clock.ask} devices, fewer than the cohort of {config.cohort}"
    if clock.ask is not None and clock.ask > config.num_devices:
        yield f"clock.ask: {clock.ask} devices a round, but the groups have only {config.num_devices}"
    yield from _buffered(config)
    if clock.deadline_seconds is not None or clock.ask is not None or clock.at_work is not None:
        yield from _timeless(config)


def _buffered(config: RunConfig) -> Iterator[str]:
    """Yield what does not go with updates made of a number of replies."""
    clock = config.clock
    if clock.at_work is None:
        if clock.staleness is not None:
            yield "clock.staleness: without clock.at_work no reply is ever stale; leave it out"
        return
    if clock.at_work > config.num_devices:
        yield f"clock.at_work: {clock.at_work} devices at a time, but the groups have only {config.num_devices}"
    if clock.ask is not None:
        yield "clock.ask: with clock.at_work, late devices count in a later update; leave out one of the two"
    if clock.among == "all":
        yield 'clock.among: with clock.at_work the server asks only devices that are present; leave out "all"'


def _timeless(config: RunConfig) -> Iterator[str]:
    """Yield the groups and devices that cannot be late, as they have no clock."""
    owners = [(f"groups[{i}].device", group.device, group.name) for i, group in enumerate(config.groups)]
    owners += [
        (f"devices[{i}].device", one.device, str(one.partition_id))
        for i, one in enumerate(config.devices)
        if one.device
    ]
    for where, device, name in owners:
        try:
            has = device is not None and draw(device, config.seed, 0).has_clock
        except ConfigError:  # reported elsewhere
            continue
        if not has:
            yield f"{where}: {name!r} has no clock, so its reply time is unknown; name a preset or give its rates"
