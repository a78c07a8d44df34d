"""The figures of a run's clock: accuracy over simulated hours and joules, and a round, device by device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fed_asi.results.drawing import BAD, GRID, line, panels, percent_axis, shades, shown
from fed_asi.results.summary import Summary
from fed_asi.results.timeline import Timeline
from fed_asi.units import energy_unit, time_unit

OVER_TIME = "Accuracy over simulated time and energy"
DOWNLOAD, COMPUTE, UPLOAD, WAITING = "#7fb7be", "#2a6f97", "#e9a23b", GRID
ROW = 0.17  # inches a device


def accuracy_over_clock(figure: Figure, summaries: Sequence[Summary]) -> None:
    """Draw accuracy over time, and over energy if any device states its power."""
    joules = [one.energy_joules for one in summaries if one.energy_joules is not None]
    time_name, second = time_unit(max(one.sim_seconds or 0.0 for one in summaries))
    energy_name, joule = energy_unit(max(joules, default=0.0))
    axes = panels(figure, 2 if joules else 1)
    for color, summary in zip(shades(len(summaries)), summaries, strict=True):
        label = "server's test images" if len(summaries) == 1 else shown(summary.name)
        times = [(r.sim_end_seconds or 0.0) / second for r in summary.rounds]
        spent = list(accumulate((r.energy_joules or 0.0) / joule for r in summary.rounds))
        for one, values in zip(axes, (times, spent), strict=False):
            known = list(zip(values, [r.accuracy for r in summary.rounds], strict=True))
            line(one, known, color=color, label=label)
    for one, title in zip(axes, (f"simulated {time_name}", f"{energy_name} of all devices"), strict=False):
        percent_axis(one)
        one.set_xlabel(title)
    axes[0].set_ylabel("accuracy on the server's test images")


def title_of(timeline: Timeline) -> str:
    """Return the title of a round's figure."""
    return f"Round {timeline.round}, device by device"


def draw_round(figure: Figure, timeline: Timeline) -> None:
    """Draw a round: download, computing, upload and waiting, one bar a device; those that did not count show why."""
    (axes,) = panels(figure, 1)
    figure.set_figheight(1.0 + ROW * max(8, len(timeline.bars)))
    places = range(len(timeline.bars))
    begun = [one.begun for one in timeline.bars]
    for title, color, lengths in _parts(timeline):
        axes.barh(places, lengths, left=begun, color=color, label=title, height=0.8)
        begun = [start + length for start, length in zip(begun, lengths, strict=True)]
    _names(axes, timeline)
    earliest = min([0.0, *(one.begun for one in timeline.bars)])
    axes.set_xlim(earliest, timeline.seconds + 0.12 * (timeline.seconds - earliest))
    axes.set_xlabel("simulated seconds after the round's start")
    axes.set_ylabel("device")


def _parts(timeline: Timeline) -> list[tuple[str, str, list[float]]]:
    bars = timeline.bars
    waits = [
        max(0.0, timeline.seconds - (one.begun + one.download + one.compute + one.upload)) for one in bars
    ]
    return [
        ("download", DOWNLOAD, [one.download for one in bars]),
        ("computing", COMPUTE, [one.compute for one in bars]),
        ("upload", UPLOAD, [one.upload for one in bars]),
        ("waiting", WAITING, waits),
    ]


def _names(axes: Axes, timeline: Timeline) -> None:
    axes.set_yticks(range(len(timeline.bars)), [str(one.partition_id) for one in timeline.bars], fontsize=7)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    for place, one in enumerate(timeline.bars):
        if one.outcome != "trained":
            axes.text(timeline.seconds * 1.01, place, one.outcome, va="center", fontsize=7, color=BAD)
