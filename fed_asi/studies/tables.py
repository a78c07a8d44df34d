"""A study's tables as text, for all output formats, and one table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table as RichTable

from fed_asi.results.rich_text import plain
from fed_asi.studies.findings import Cost, Findings, Row
from fed_asi.studies.measures import ACCURACY, SAVED, WORST_CLASS, Measure
from fed_asi.studies.sentences import answer
from fed_asi.studies.statistics import Verdict, estimate
from fed_asi.studies.wording import Wording, heading, seeds, under_difference, under_estimate, wording
from fed_asi.texts import clipped

NONE = "-"
NAME_CHARS = 60  # of a variant's or a group's name in a table
COMPARED = (ACCURACY, WORST_CLASS)  # the measures with a column of differences


@dataclass(frozen=True, slots=True)
class Entry:
    """One cell: its value and, in smaller type below, the uncertainty."""

    text: str
    under: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Headings, and a row per variant whose first entry is the variant's name."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]


def tables(found: Findings) -> tuple[Table, ...]:
    """Return every table that has content, the answer to the study's question first."""
    made = [headline(found), _costs(found), _levels(found), _shared(found), _others(found)]
    return tuple(one for one in made if one is not None)


def headline(found: Findings) -> Table:
    """Return the table of the study's main measures by variant, with differences from the baseline if there is one."""
    columns: list[Column] = []
    for measure, rows in found.rows.items():
        if measure.headline:
            columns += _columns(found, measure, rows)
    return _table("Every variant", found, [*columns, _seeds_column(found)])


def _others(found: Findings) -> Table | None:
    columns = [
        column
        for measure, rows in found.rows.items()
        if not measure.headline
        for column in _columns(found, measure, rows)
    ]
    return _table("Other measures", found, columns) if columns else None


Column = tuple[str, Mapping[str, Entry]]  # its heading, and an entry per variant


def _table(title: str, found: Findings, columns: Sequence[Column]) -> Table:
    rows = tuple(
        (
            Entry(clipped(name, NAME_CHARS), "baseline" if name == found.study.baseline else ""),
            *(entries[name] for _, entries in columns),
        )
        for name in found.variants
    )
    return Table(title, ("variant", *(title for title, _ in columns)), rows)


def _seeds_column(found: Findings) -> Column:
    planned = {name: sum(cell.variant == name for cell in found.study.cells) for name in found.variants}
    said = {
        name: Entry(str(len(runs)) if len(runs) == planned[name] else f"{len(runs)} of {planned[name]}")
        for name, runs in found.runs.items()
    }
    return "seeds", said


def _columns(found: Findings, measure: Measure, rows: Mapping[str, Row]) -> Iterator[Column]:
    words = wording(measure, rows.values())
    yield heading(measure), {name: _estimated(words, row) for name, row in rows.items()}
    if measure in COMPARED and found.study.baseline is not None:
        yield "against baseline, points", {name: _compared(words, row) for name, row in rows.items()}


def _estimated(words: Wording, row: Row) -> Entry:
    if row.estimate is None:
        return Entry(NONE)
    return Entry(words.value(row.estimate.mean), under_estimate(words, row.estimate))


def _compared(words: Wording, row: Row) -> Entry:
    one = row.difference
    if one is None or one.mean is None:
        return Entry(NONE if one is None else "", "" if one is None else str(one.verdict))
    return Entry(words.change(one.mean), under_difference(words, one, len(row.values)), one.verdict)


def _costs(found: Findings) -> Table | None:
    columns: list[Column] = []
    for measure, costs in found.costs.items():
        words = Wording(measure.unit)
        entries = {name: _cost(words, cost) for name, cost in costs.items()}
        columns.append((measure.title, entries))
    target = found.study.target
    return _table(f"Cost to {100 * (target or 0):.4g} % accuracy", found, columns) if columns else None


def _levels(found: Findings) -> Table | None:
    """Return the table of variants at equal spending, when the first run ends; None if there is none."""
    columns: list[Column] = []
    for measure, level in found.levels.items():
        limit = Wording(measure.unit).value(level.limit)
        own, *against = _columns(found, ACCURACY, level.rows)
        columns += [(f"{ACCURACY.title} at {limit}, %", own[1]), *against]
    title = "At equal spending: each run's last evaluation within what the cheapest run spent"
    return _table(title, found, columns) if columns else None


def _cost(words: Wording, cost: Cost) -> Entry:
    """Return the mean if every run reached the target; else the median, if most did, and the number of runs."""
    if cost.estimate is not None:
        parts = [under_estimate(words, cost.estimate), _cost_change(words, cost)]
        return Entry(words.value(cost.estimate.mean), "; ".join(filter(None, parts)))
    if not cost.values:
        return Entry(NONE)
    there = f"{cost.reached} of {len(cost.values)} reached it"
    if cost.median is None:
        return Entry("not reached", there if cost.reached else f"in {seeds(len(cost.values))}")
    return Entry(words.value(cost.median), f"median, {there}")


def _cost_change(words: Wording, cost: Cost) -> str:
    """Return the cost relative to the baseline, if every run of both reached the target."""
    one = cost.difference
    if one is None or one.mean is None:
        return ""
    return f"{words.change(one.mean)} against baseline, {one.verdict}"


def _shared(found: Findings) -> Table | None:
    """Return the table of the final shared model's accuracy by device group, on all held-out images of their shards."""
    groups = dict.fromkeys(
        group for runs in found.runs.values() for run in runs.values() for group in run.shared
    )
    words = Wording("share")
    columns: list[Column] = []
    for group in groups:
        entries = {}
        for name, runs in found.runs.items():
            values = [run.shared[group] for run in runs.values() if group in run.shared]
            summed = estimate(values, (0.0, 1.0)) if values else None
            entries[name] = (
                Entry(NONE)
                if summed is None
                else Entry(words.value(summed.mean), under_estimate(words, summed))
            )
        columns.append((f"{clipped(group, NAME_CHARS)}, %", entries))
    title = "The last shared model on each group's held-out images (they differ: compare within a column)"
    return _table(title, found, columns) if columns else None


def text_table(found: Findings) -> RenderableType:
    """Return the result for a terminal: the answer in sentences, then a row per variant with the main measures."""
    made = RichTable(
        title=plain(found.study.title),
        title_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table = headline(found)
    baseline = ("against baseline, points",) if found.study.baseline is not None else ()
    wanted = ("variant", heading(ACCURACY), *baseline, heading(WORST_CLASS), heading(SAVED), "seeds")
    shown = [table.headings.index(one) for one in wanted if one in table.headings]
    for i in shown:
        made.add_column(table.headings[i], justify="left" if i == 0 else "right")
    for row in table.rows:
        made.add_row(*(plain(_on_a_line(row[i])) for i in shown))
    return Group(made, *(plain(line) for line in answer(found)))


def gap_lines(found: Findings) -> list[str]:
    """Return a line per variant and cause for the runs that are missing."""
    seeds_of: dict[tuple[str, str | None], list[int]] = {}
    for cell in found.gaps:
        seeds_of.setdefault((cell.variant, cell.gap), []).append(cell.seed)
    return [
        f"no run of {variant}, seed{'s' if len(held) > 1 else ''} {', '.join(map(str, held))}: {cause}"
        for (variant, cause), held in seeds_of.items()
    ]


def _on_a_line(entry: Entry) -> str:
    return f"{entry.text} ({entry.under})" if entry.text and entry.under else entry.text or entry.under
