"""A run's summary as a table of texts, and as rich text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table

from fed_asi.results.rich_text import plain
from fed_asi.results.summary import GroupResult, Summary
from fed_asi.units import format_bytes

COLUMNS = (
    "group",
    "devices",
    "budget",
    "planned",
    "measured",
    "papers' count",
    "micro-batch",
    "layers",
    "local accuracy",
    "took part",
)


OPTIONAL = {"papers' count", "micro-batch", "planned"}


WIDE = 110


def table(summary: Summary, width: int = 120) -> RenderableType:
    """Return the result as rich text: a row a budget group, then the whole fleet in words.

    width: in characters; a narrow one leaves out the columns one can do without.
    """
    made = Table(title=plain(f"{summary.name}: what each budget bought"), title_justify="left")
    shown = [i for i, column in enumerate(COLUMNS) if width >= WIDE or column not in OPTIONAL]
    for i in shown:
        made.add_column(COLUMNS[i], justify="left" if COLUMNS[i] in {"group", "took part"} else "right")
    for group in summary.groups:
        row = cells(group)
        made.add_row(*(plain(row[i]) for i in shown))
    return Group(made, *(plain(line) for line in lines(summary)))


def cells(group: GroupResult) -> list[str]:
    """Return one group's row as text, in the order of COLUMNS."""
    return [
        group.name,
        str(group.devices),
        span_bytes(group.budgets),
        _size(group.planned_bytes),
        _size(group.measured_bytes),
        _size(group.published_bytes),
        _span(group.micro_batches),
        _span(group.trained_layers),
        _change(group.accuracy_before, group.accuracy_after),
        _participation(group),
    ]


def lines(summary: Summary) -> list[str]:
    """Return what the table cannot hold: the fleet's accuracy, who was left out and why, what is missing."""
    said = [*summary.missing, _accuracy(summary)]
    said += _clock(summary)
    said += _left_out(summary)
    said += [f"note: {note}" for note in summary.notes]
    if summary.standing != "finished":
        said.append(f"the run is {summary.standing}")
    return said


def _clock(summary: Summary) -> list[str]:
    """Return what the run took on its clock, where it has one that ran."""
    if not summary.sim_seconds:
        return []
    energy = "" if summary.energy_joules is None else f", {summary.energy_joules / 1e3:,.3g} kJ"
    return [f"on the run's clock: {summary.sim_seconds / 3600:,.3g} h{energy}"]


def _left_out(summary: Summary) -> list[str]:
    """Return a line an outcome other than "trained", with its most frequent cause."""
    lines: dict[str, str] = {}
    for outcome, cause, _ in summary.causes:
        times = sum(group.left_out.get(outcome, 0) for group in summary.groups)
        lines.setdefault(outcome, f"{times} × {outcome}, as in: {cause}" if cause else f"{times} × {outcome}")
    return list(lines.values())


def _accuracy(summary: Summary) -> str:
    first, final = summary.first, summary.final
    if first is None or final is None or final.accuracy is None or first.accuracy is None:
        return "no evaluation yet"
    text = f"server's test images: accuracy {100 * first.accuracy:.1f} % → {100 * final.accuracy:.1f} %"
    if final.worst_class_accuracy is not None:
        text += f", worst class {100 * final.worst_class_accuracy:.1f} %"
    seconds = sum(record.host_seconds for record in summary.rounds)
    return f"{text}, after {final.round} rounds in {seconds:.0f} s"


def span_bytes(budgets: Sequence[int | None]) -> str:
    """Return one budget, or the smallest and largest of several, for people."""
    if not budgets:
        return "-"
    low, high = format_bytes(budgets[0]), format_bytes(budgets[-1])
    return low if low == high else f"{low} to {high}"


def _size(size: int | None) -> str:
    return "-" if size is None else format_bytes(size)


def _span(values: Sequence[int]) -> str:
    if not values:
        return "-"
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "-"
    return f"{100 * before:.1f} → {100 * after:.1f} %"


def _participation(group: GroupResult) -> str:
    text = f"{group.trained} of {group.asked}"
    return text + "".join(f", {count} {outcome}" for outcome, count in group.left_out.items())
