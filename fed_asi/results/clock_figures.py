"""The figures of a run's clock: accuracy over simulated hours and joules, and a round, device by device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fed_asi.results.drawing import BAD, line, panels, percent_axis, shades, shown
from fed_asi.results.summary import Summary
from fed_asi.results.timeline import Timeline

OVER_TIME = "Accuracy over simulated time and energy"
SAYS = "Hours and joules are counted from each device's plan and rates (docs/clock.md); joules are those of the fleet."
DOWNLOAD, COMPUTE, UPLOAD, WAITING = "#7fb7be", "#2a6f97", "#e9a23b", "#e3e8ec"


def accuracy_over_clock(figure: Figure, summaries: Sequence[Summary]) -> None:
    """Draw accuracy over hours, and over joules where any device says what it draws."""
    powered = any(one.energy_joules is not None for one in summaries)
    axes = panels(figure, 2 if powered else 1)
    for color, summary in zip(shades(len(summaries)), summaries, strict=True):
        label = "server's test images" if len(summaries) == 1 else shown(summary.name)
        hours = [(r.sim_end_seconds or 0.0) / 3600 for r in summary.rounds]
        joules = accumulate((r.energy_joules or 0.0) / 1e3 for r in summary.rounds)
        accuracies = [r.accuracy for r in summary.rounds]
        for one, values in zip(axes, (hours, joules), strict=False):
            line(one, list(zip(values, accuracies, strict=True)), color=color, label=label)
    for one, title in zip(axes, ("simulated hours", "kJ of all devices"), strict=False):
        percent_axis(one)
        one.set_xlabel(title)
    axes[0].set_ylabel("accuracy on the server's test images")


def round_of(timeline: Timeline) -> tuple[str, str]:
    """Return the title of a round's figure, and what it says beside it."""
    more = f" The {timeline.left_out} devices that were done first are left out." if timeline.left_out else ""
    return f"Round {timeline.round}, device by device", f"One bar a device.{more}"


def draw_round(figure: Figure, timeline: Timeline) -> None:
    """Draw a round: download, computing, upload and waiting, one bar a device; who did not count has its outcome."""
    (axes,) = panels(figure, 1)
    places = range(len(timeline.bars))
    begun = [0.0 for _ in places]
    for title, color, lengths in _parts(timeline):
        axes.barh(places, lengths, left=begun, color=color, label=title, height=0.8)
        begun = [start + length for start, length in zip(begun, lengths, strict=True)]
    _names(axes, timeline)
    axes.set_xlim(0.0, timeline.seconds * 1.12)
    axes.set_xlabel("simulated seconds after the round's start")
    axes.set_ylabel("device")


def _parts(timeline: Timeline) -> list[tuple[str, str, list[float]]]:
    bars = timeline.bars
    waits = [max(0.0, timeline.seconds - (one.download + one.compute + one.upload)) for one in bars]
    return [
        ("download", DOWNLOAD, [one.download for one in bars]),
        ("computing", COMPUTE, [one.compute for one in bars]),
        ("upload", UPLOAD, [one.upload for one in bars]),
        ("waiting", WAITING, waits),
    ]


def _names(axes: Axes, timeline: Timeline) -> None:
    axes.set_yticks(range(len(timeline.bars)), [str(one.partition_id) for one in timeline.bars], fontsize=6)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    for place, one in enumerate(timeline.bars):
        if one.outcome != "trained":
            axes.text(timeline.seconds * 1.01, place, one.outcome, va="center", fontsize=6, color=BAD)
