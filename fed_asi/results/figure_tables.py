"""The numbers behind a run's figures, as tables of texts for readers who want to look them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from fed_asi.results.estimate import Estimate
from fed_asi.results.schema import RoundRecord
from fed_asi.results.summary import DeviceResult, Summary
from fed_asi.results.timeline import Timeline
from fed_asi.units import format_bytes, format_joules, format_seconds

MOST_ROWS = 200  # on a page; the records have all of them


@dataclass(frozen=True, slots=True)
class FigureTable:
    """Headings and rows of texts. more: rows that are left out."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> FigureTable:
    shown = tuple(tuple(row) for row in rows[:MOST_ROWS])
    return FigureTable(tuple(headings), shown, max(0, len(rows) - MOST_ROWS))


def rounds_table(summaries: Sequence[Summary]) -> FigureTable:
    """Return each round's accuracy; for a single run also that of its worst class, and how many devices trained."""
    if len(summaries) == 1:
        rows = [
            (
                str(one.round),
                _share(one.accuracy),
                _share(one.worst_class_accuracy),
                f"{one.trained} of {one.asked}",
            )
            for one in summaries[0].rounds
        ]
        return _table(("round", "accuracy", "worst class", "devices that trained"), rows)
    return _of_several(summaries, "round", lambda one, _: str(one.round))


def clock_table(summaries: Sequence[Summary]) -> FigureTable:
    """Return accuracy by simulated time, and for one run the joules spent by then."""
    if len(summaries) > 1:
        return _of_several(summaries, "simulated time", lambda one, _: _time(one.sim_end_seconds))
    (summary,) = summaries
    spent = accumulate(one.energy_joules or 0.0 for one in summary.rounds)
    rows = [
        (str(one.round), _time(one.sim_end_seconds), _energy(joules), _share(one.accuracy))
        for one, joules in zip(summary.rounds, spent, strict=True)
    ]
    return _table(("round", "simulated time", "joules so far", "accuracy"), rows)


def _of_several(
    summaries: Sequence[Summary], title: str, place: Callable[[RoundRecord, Summary], str]
) -> FigureTable:
    rows = [
        (summary.name, place(one, summary), _share(one.accuracy))
        for summary in summaries
        for one in summary.rounds
    ]
    return _table(("run", title, "accuracy"), rows)


def runs_table(summaries: Sequence[Summary]) -> FigureTable:
    """Return for each run the saved bytes of its largest step, and its final accuracy."""
    rows = []
    for summary in summaries:
        sizes = [one.measured_bytes for one in summary.devices if one.measured_bytes is not None]
        final = None if summary.final is None else summary.final.accuracy
        rows.append((summary.name, format_bytes(max(sizes)) if sizes else "-", _share(final)))
    return _table(("run", "largest step", "final accuracy"), rows)


def devices_table(summary: Summary) -> FigureTable:
    """Return each device under each of its budgets: its bytes, how often it trained, and what it gained."""
    columns: dict[str, Callable[[DeviceResult], str]] = {
        "device": lambda one: str(one.partition_id),
        "group": lambda one: one.group,
        "budget": lambda one: format_bytes(one.budget_bytes),
        "planned": lambda one: _size(one.planned_bytes),
        "measured": lambda one: _size(one.measured_bytes),
        "trained": lambda one: f"{one.trained} of {one.asked}",
    }
    if any(one.gradient_captured is not None for one in summary.devices):
        columns["captured"] = lambda one: _share(one.gradient_captured)
    if summary.twins:
        columns["against its twin"] = lambda one: _points(one.twin_difference)
        columns["cosine"] = lambda one: "-" if one.twin_cosine is None else f"{one.twin_cosine:.3f}"
    else:
        columns["gained in a round"] = lambda one: _points(one.gain)
    return _table(tuple(columns), [tuple(cell(one) for cell in columns.values()) for one in summary.devices])


def round_table(timeline: Timeline) -> FigureTable:
    """Return the bars of a round: each device's phases in simulated seconds."""
    rows = [
        (str(one.partition_id), one.group, one.outcome,
         *(f"{seconds:.3g}" for seconds in (one.begun, one.download, one.compute, one.upload)))
        for one in timeline.bars
    ]  # fmt: skip
    return _table(
        ("device", "group", "outcome", "began, s", "download, s", "computing, s", "upload, s"), rows
    )


def mean_of(found: Estimate | None) -> str:
    """Return a mean of differences with half of its interval in points, such as "-0.8 ± 0.3"."""
    if found is None:
        return "-"
    half = "" if found.half is None else f" ± {100 * found.half:.1f}"
    return f"{100 * found.mean:+.1f}{half}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.2f} points"


def _size(value: int | None) -> str:
    return "-" if value is None else format_bytes(value)


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else format_seconds(seconds)


def _energy(joules: float) -> str:
    return format_joules(joules)
