"""The first screen of a run's page: did it work, what did each budget buy, what was left out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fed_asi.fleets.config import RunConfig
from fed_asi.results.figure_tables import mean_of
from fed_asi.results.now import Now
from fed_asi.results.summary import GroupResult, Summary
from fed_asi.results.table import left_out, span_bytes
from fed_asi.units import format_bytes, format_seconds

Mark = Literal["good", "part", "bad", "going"]
MOST_GROUPS, MOST_LINES = 5, 3  # so that the rest also fits on the screen of a phone


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer in a few words, with lines that support it. mark: how good the news is."""

    mark: Mark
    says: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bought:
    """What one group's budget bought: its name and what limits it, each with a smaller text below, and its accuracy."""

    group: tuple[str, str]
    budget: tuple[str, str]
    gained: str


def did_it_work(summary: Summary, now: Now | None = None) -> Answer:
    """Return whether the run completed all it was asked for, and how accurate the model is."""
    status, wanted = summary.run.status, RunConfig.from_json(summary.run.config).rounds
    done = f"{max((one.round for one in summary.rounds), default=0)} of {wanted} rounds"
    if summary.going:
        says = f"It is running: {done} are done" if summary.rounds else "It is being prepared"
        return Answer("going", says, (*([now.text] if now else []), *_accuracy(summary)))
    if status == "failed":
        return Answer("bad", f"No: it failed after {done}", (summary.run.cause or "", *_accuracy(summary)))
    if status != "finished":
        return Answer("part", f"Not yet: it stopped after {done}", (summary.standing, *_accuracy(summary)))
    return _at_its_end(summary, done)


def _at_its_end(summary: Summary, done: str) -> Answer:
    if not sum(one.trained for one in summary.groups):
        return Answer("bad", "No: no device ever trained", summary.missing)
    if summary.missing:
        return Answer("part", f"In part: {done}", (*_accuracy(summary), *summary.missing))
    first, final = summary.first, summary.final
    if first and final and (final.accuracy or 0.0) < (first.accuracy or 0.0):
        return Answer("part", f"It ran to its end ({done}), but accuracy fell", tuple(_accuracy(summary)))
    return Answer("good", f"Yes: {done}, every device accounted for", tuple(_accuracy(summary)))


def _accuracy(summary: Summary) -> Iterator[str]:
    first, final = summary.first, summary.final
    if first is None or final is None or first.accuracy is None or final.accuracy is None:
        return
    if first is final:
        yield f"accuracy {100 * first.accuracy:.1f} % before any training, on the server's test images"
        return
    yield f"accuracy {100 * first.accuracy:.1f} % → {100 * final.accuracy:.1f} % on the server's test images"
    if final.worst_class_accuracy is not None:
        yield f"its worst class {100 * final.worst_class_accuracy:.1f} %"
    if summary.sim_seconds:
        yield f"{format_seconds(summary.sim_seconds)} on the run's clock"


def bought(summary: Summary) -> list[Bought]:
    """Return a line a group, in the order of the fleet file."""
    return [Bought(_group(one), _budget(one), _gained(one, summary)) for one in summary.groups]


def _group(group: GroupResult) -> tuple[str, str]:
    devices = "1 device" if group.devices == 1 else f"{group.devices} devices"
    return group.name, f"{devices}, trained {group.trained} of {group.asked}"


def _budget(group: GroupResult) -> tuple[str, str]:
    """Return what limits a group's step, and how much of it its largest step used."""
    if group.ram_limit_bytes is not None:
        used = "no step ran" if group.ram_bytes is None else f"a step needs {format_bytes(group.ram_bytes)}"
        return f"{format_bytes(group.ram_limit_bytes)} RAM", used
    used = (
        "no step ran"
        if group.measured_bytes is None
        else f"a step saves {format_bytes(group.measured_bytes)}"
    )
    return span_bytes(group.budgets), used


def how_gained(summary: Summary) -> str:
    """Return which accuracy one run can say of a group: against its twins, else what the model knows of its images."""
    if summary.twins:
        return "points, against a plain twin" if summary.twins == "plain" else "points, against its twin"
    judged = any(one.accuracy is not None for group in summary.groups for one in group.shared)
    return "shared model, its images" if judged else "last round, own images"


def _gained(group: GroupResult, summary: Summary) -> str:
    if summary.twins:
        return mean_of(group.twin_difference)
    judged = [one.accuracy for one in group.shared if one.accuracy is not None]
    if judged:
        return _change(judged[0], judged[-1])
    if group.accuracy_before is None or group.accuracy_after is None:
        return "-"
    return _change(group.accuracy_before, group.accuracy_after)


def _change(before: float, after: float) -> str:
    return f"{100 * before:.1f} → {100 * after:.1f} %"


def was_left_out(summary: Summary) -> Answer:
    """Return which device-rounds did not count, and why; each kind once."""
    asked, trained = (sum(getattr(one, name) for one in summary.groups) for name in ("asked", "trained"))
    if not asked:
        return Answer("going", "Nothing yet: no device was asked")
    if asked == trained:
        return Answer("good", f"Nothing: devices were asked {asked} times and trained every time")
    says = f"{asked - trained} of the {asked} times a device was asked"
    return Answer("part", says, tuple(left_out(summary)))
