"""Captions of a run's figures: what to see in each, in a sentence or two, with the run's own numbers."""

from __future__ import annotations

from collections.abc import Sequence

from fed_asi.results.summary import Summary
from fed_asi.results.timeline import Timeline
from fed_asi.units import format_bytes, format_seconds

SEVERAL = (
    "One dot per run: fewer bytes are to the left, a higher final accuracy is further up. Whether two runs differ by "
    "more than chance takes several seeds of each to say."
)


def of_rounds(summaries: Sequence[Summary]) -> str:
    """Return what accuracy over rounds shows."""
    if len(summaries) > 1:
        return "One line per run, on the same test images; round 0 is the model before any training."
    first, final = summaries[0].first, summaries[0].final
    if first is None or final is None:
        return "Nothing was evaluated yet."
    change = f"from {_share(first.accuracy)} to {_share(final.accuracy)}"
    text = f"The shared model goes {change} on the server's test images"
    if final.worst_class_accuracy is not None:
        text += f"; its worst class (dashed) ends at {_share(final.worst_class_accuracy)}"
    return f"{text}. Round 0 is the model before any training."


def of_budgets(summary: Summary) -> str:
    """Return what measured bytes against budget show."""
    held = [
        (one.measured_bytes, one.budget_bytes, one)
        for one in summary.devices
        if one.measured_bytes and one.budget_bytes is not None
    ]
    over = [one for measured, budget, one in held if measured > budget and one.trained]
    text = "The red line is the budget: a step above it is out of memory, and its update is not used."
    if over:
        text += f" {len(over)} devices have steps above it."
    elif held:
        measured, budget, _ = max(held, key=lambda one: one[0] / one[1])
        text += (
            f" No dot is above: the nearest took {format_bytes(measured)} of {format_bytes(budget)}, "
            f"{100 * measured / budget:.0f} %."
        )
    return f"{text} Rings are planned, dots measured; a dot inside its ring is a step that kept to its plan."


def of_clock(summaries: Sequence[Summary]) -> str:
    """Return what accuracy over the clock shows, and where its numbers come from."""
    lasted = [one.sim_seconds for one in summaries if one.sim_seconds is not None]
    took = (
        f"The run took {format_seconds(lasted[0])} on its clock. "
        if len(lasted) == len(summaries) == 1
        else ""
    )
    return (
        f"{took}Time and energy are counted from each device's plan and rates (docs/explanation/clock.md); "
        "joules are those of the fleet."
    )


def of_round(timeline: Timeline) -> str:
    """Return which devices make a round long."""
    longest = max(timeline.bars, key=lambda one: one.download + one.compute + one.upload, default=None)
    more = f" The {timeline.left_out} devices that finished first are left out." if timeline.left_out else ""
    if longest is None:
        return f"One bar per device.{more}"
    parts = {"download": longest.download, "computing": longest.compute, "upload": longest.upload}
    most = max(parts, key=lambda name: parts[name])
    return (
        f"One bar per device. The round took {format_seconds(timeline.seconds)}; device {longest.partition_id} worked "
        f"longest, most of it {most}; grey is waiting for the others.{more}"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
