"""A run's summary as a table, in texts and in rich text for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table

from fed_asi import own_code
from fed_asi.fleets.aggregate import AggregateConfig, UploadConfig
from fed_asi.fleets.config import RunConfig
from fed_asi.results.estimate import Estimate
from fed_asi.results.rich_text import plain
from fed_asi.results.summary import GroupResult, Summary
from fed_asi.texts import visible
from fed_asi.units import format_bytes, format_joules, format_seconds


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its title, the text of a group, and its meaning; "" if the title or a line below says it.

    spare: the higher, the sooner it gives way to others; 0: never. right: for numbers, which never wrap.
    """

    title: str
    cell: Callable[[GroupResult], str]
    meaning: str = ""
    spare: int = 0
    right: bool = True

    def width(self, groups: Sequence[GroupResult]) -> int:
        """Return how many characters it needs; titles, and texts other than numbers, may wrap."""
        texts = [visible(self.cell(group)) for group in groups]
        parts = texts if self.right else [part for text in texts for part in text.split(", ")]
        return max(map(cell_len, (*self.title.split(), *parts)))


def span_bytes(budgets: Sequence[int | None]) -> str:
    """Return one budget, or the smallest and largest of several, as text."""
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


def _share(found: Estimate | None) -> str:
    return "-" if found is None else f"{100 * found.mean:.1f} %"


def _points(found: Estimate | None) -> str:
    """Return a mean of differences in points, with its interval or, without one, how few devices it is of."""
    if found is None:
        return "-"
    mean = f"{100 * found.mean:+.2f}"
    return f"{mean} ({found.count})" if found.half is None else f"{mean} ± {100 * found.half:.2f}"


def _shared(group: GroupResult) -> str:
    """Return the shared model's accuracy on the group's held-out images: the first known, and the last."""
    known = [one.accuracy for one in group.shared if one.accuracy is not None]
    if len(known) < 2:
        return f"{100 * known[0]:.1f} %" if known else "-"
    return _change(known[0], known[-1])


def _participation(group: GroupResult) -> str:
    text = f"{group.trained} of {group.asked}"
    return text + "".join(f", {count} {outcome}" for outcome, count in group.left_out.items())


BETWEEN = 2  # characters between two columns

FIRST = (
    Column("group", lambda g: g.name, right=False),
    Column("devices", lambda g: str(g.devices), "", 1),
    Column("budget", lambda g: span_bytes(g.budgets), "what a device may keep for the backward pass"),
    Column("planned", lambda g: _size(g.planned_bytes), "the most that a plan keeps", 6),
    Column("measured", lambda g: _size(g.measured_bytes), "the most that a step kept"),
)
RAM = Column("RAM", lambda g: _size(g.ram_bytes), "the most that a whole step needs")
FLASH = Column("flash", lambda g: _size(g.flash_bytes), "the most that is only read", 4)
PIXELS = Column(
    "pixels", lambda g: _span(g.resolutions), "high and wide, of the images that a device sees", 4
)
CAPTURED = Column("captured", lambda g: _share(g.gradient_captured), "the gradient's share that is kept", 7)
LOCAL = Column(
    "local accuracy",
    lambda g: _change(g.accuracy_before, g.accuracy_after),
    "on a device's own held-out images, before → after a round's training, the mean over devices",
)
TWIN = Column("against its twin", lambda g: _points(g.twin_difference))
COSINE = Column(
    "cosine",
    lambda g: "-" if g.twin_cosine is None else f"{g.twin_cosine.mean:.3f}",
    "of a device's update with its twin's",
    3,
)
SHARED = Column("shared model", _shared, "on the group's held-out images, first → last round", 5)
HOW = (
    Column("layers", lambda g: _span(g.trained_layers), "how many a device trains", 2),
    Column("micro-batch", lambda g: _span(g.micro_batches), "images held at one time", 8),
    Column("papers' count", lambda g: _size(g.published_bytes), "measured bytes as the papers count them", 9),
)
PART = Column(
    "took part", _participation, "rounds of a device that trained, of those it was asked in", right=False
)


def columns(summary: Summary) -> list[Column]:
    """Return the columns of a run's table: those of every run, and those for which this one has numbers."""
    found = [*FIRST]
    found += [RAM, FLASH] if any(g.ram_bytes is not None for g in summary.groups) else []
    found += [PIXELS] if len({pixels for g in summary.groups for pixels in g.resolutions}) > 1 else []
    found += [CAPTURED] if any(g.gradient_captured for g in summary.groups) else []
    found += [TWIN, COSINE] if summary.twins else []
    found += [LOCAL]
    found += [SHARED] if any(g.shared for g in summary.groups) else []
    return [*found, *HOW, PART]


def table(summary: Summary, width: int = 120) -> RenderableType:
    """Return the result as rich text: a row a budget group, then the whole fleet in words. width: as in `grid`."""
    return Group(grid(summary, width), *(plain(line) for line in lines(summary)))


def grid(summary: Summary, width: int) -> Table:
    """Return a row a budget group, with what its columns mean below.

    width: in characters; a narrow one leaves out the columns one can do without, which are named.
    """
    every = columns(summary)
    shown = fitting(every, summary.groups, width)
    made = Table(
        title=plain(f"{summary.name}: what each budget bought"),
        caption=plain(_meaning(shown, every)),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for one in shown:
        fixed = one.width(summary.groups) if one.right else None
        made.add_column(one.title, justify="right" if one.right else "left", width=fixed)
    for group in summary.groups:
        made.add_row(*(plain(one.cell(group)) for one in shown))
    return made


def _meaning(shown: Sequence[Column], every: Sequence[Column]) -> str:
    """Return what each column means, and which there are beside them."""
    said = "; ".join(f"{one.title}: {one.meaning}" for one in shown if one.meaning)
    left_out = [one.title for one in every if one not in shown]
    return said + (f". Left out here (--wide): {', '.join(left_out)}" if left_out else "")


def fitting(every: Sequence[Column], groups: Sequence[GroupResult], width: int) -> list[Column]:
    """Return the columns that fit into this width, always including those that no table does without."""
    shown = list(every)
    while sum(one.width(groups) + BETWEEN for one in shown) - BETWEEN > width:
        spare = max(shown, key=lambda one: one.spare)
        if not spare.spare:
            break
        shown.remove(spare)
    return shown


def lines(summary: Summary) -> list[str]:
    """Return what the table cannot hold: the fleet's accuracy, who was left out and why, what is missing."""
    said = [*summary.missing, _accuracy(summary), *_exchanged(summary)]
    said += _clock(summary)
    said += left_out(summary)
    said += reading(summary)
    said += [f"note: {note}" for note in summary.notes]
    if summary.standing != "finished":
        said.append(f"the run is {summary.standing}")
    return said


def _clock(summary: Summary) -> list[str]:
    """Return what the run took on its clock, where it has one that ran."""
    if not summary.sim_seconds:
        return []
    energy = (
        "" if summary.energy_joules is None else f", {format_joules(summary.energy_joules)} of all devices"
    )
    return [f"on the run's clock: {format_seconds(summary.sim_seconds)}{energy}"]


def reading(summary: Summary) -> list[str]:
    """Return how to read the table, for columns that could be misread."""
    if summary.twins is not None:
        how = (
            "plain training of the same layers" if summary.twins == "plain" else "the same without its budget"
        )
        return [
            f"against its twin: accuracy of a device minus that of {how}, in points, the mean over devices ± half of "
            "its 95 % interval"
        ]
    trained = [group for group in summary.groups if group.trained]
    if len(trained) > 1:
        return [
            "groups have different images, so the table does not show what a budget costs; measure.twins = true does"
        ]
    return []


def left_out(summary: Summary) -> list[str]:
    """Return one line for each outcome other than "trained", with its most frequent cause."""
    lines: dict[str, str] = {}
    for outcome, cause, _ in summary.causes:
        times = sum(group.left_out.get(outcome, 0) for group in summary.groups)
        lines.setdefault(outcome, f"{times} × {outcome}, as in: {cause}" if cause else f"{times} × {outcome}")
    return list(lines.values())


def _exchanged(summary: Summary) -> list[str]:
    """Return the cost of strategy and codec in memory and transfer, if a run chose any."""
    config = RunConfig.from_json(summary.run.config)
    strategy, codec = config.aggregate.strategy, config.upload.codec
    if (strategy, codec) == (AggregateConfig().strategy, UploadConfig().codec):
        return []
    held = max((one.strategy_bytes or 0 for one in summary.devices), default=0)
    up, down = (sum(getattr(one, name) for one in summary.rounds) for name in ("bytes_up", "bytes_down"))
    shown = own_code.shown_name
    return [
        f'strategy "{shown(strategy)}", codec "{shown(codec)}": a device holds up to '
        f"{format_bytes(held)} for them besides its step; {format_bytes(up)} went up, {format_bytes(down)} down"
    ]


def _accuracy(summary: Summary) -> str:
    first, final = summary.first, summary.final
    if first is None or final is None or final.accuracy is None or first.accuracy is None:
        return "no evaluation yet"
    text = f"server's test images: accuracy {100 * first.accuracy:.1f} % → {100 * final.accuracy:.1f} %"
    if final.worst_class_accuracy is not None:
        text += f", worst class {100 * final.worst_class_accuracy:.1f} %"
    seconds = sum(record.host_seconds for record in summary.rounds)
    return f"{text}, after {final.round} rounds in {seconds:.0f} s"
