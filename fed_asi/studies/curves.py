"""Accuracy over rounds, and over simulated time for runs with a clock: means over seeds, with bands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes

from fed_asi.results.drawing import INK, shown
from fed_asi.studies.drawing import (
    Look,
    Picture,
    canvas,
    capital,
    cost_axis,
    ladder_looks,
    look,
    picture,
    share_axis,
)
from fed_asi.studies.findings import Findings
from fed_asi.studies.measures import CURVES, ROUNDS, Curve, Measure
from fed_asi.studies.reading import Reading
from fed_asi.studies.statistics import FEWEST_SEEDS, Bounds, Estimate, estimate

CLOCKS = ("rounds", "seconds", "joules")  # the units that the horizontal axis of a curve may have
MOST_LINES = 7  # in one picture; more lines are split over several


Sheet = tuple[str, dict[str, tuple[str, Look]]]  # a picture's title, and the label and look of each variant


@dataclass(frozen=True, slots=True)
class Band:
    """A curve over seeds, at the rounds that every seed evaluated. spent: the measure's sum up to each point."""

    spent: tuple[float, ...]
    values: tuple[Estimate, ...]


def band(runs: Mapping[int, Reading], curve: Curve, clock: Measure) -> Band | None:
    """Return a variant's curve; None if no round was evaluated in all of its runs, or they lack the clock."""
    held = [run for run in runs.values() if curve.name in run.curves]
    if not held or any(clock.name not in run.spent for run in held):
        return None
    common = sorted(set.intersection(*({*run.curves[curve.name]} for run in held)))
    if not common:
        return None
    spent = tuple(fmean(_spent(run.spent[clock.name], round) for run in held) for round in common)
    values = tuple(estimate([run.curves[curve.name][round] for run in held], (0.0, 1.0)) for round in common)
    return Band(spent, values)


def _spent(series: Mapping[int, float], round: int) -> float:
    return max((value for number, value in series.items() if number <= round), default=0.0)


def curves(found: Findings) -> Iterator[Picture]:
    """Yield each curve over rounds, and the first curve over every other clock; many variants are split by family."""
    for clock in _clocks(found):
        for curve in CURVES if clock is ROUNDS else CURVES[:1]:
            bands = {
                name: made
                for name, runs in found.runs.items()
                if (made := band(runs, curve, clock)) is not None
            }
            sheets = list(sheets_of(found, bands))
            for number, (title, looks) in enumerate(sheets, start=1):
                yield _curve(found, curve, clock, bands, looks, title if len(sheets) > 1 else "", number)


def _clocks(found: Findings) -> list[Measure]:
    """Return rounds and every price that grows with time, in the order of CLOCKS."""
    known = [one for one in found.rows if one is ROUNDS or (one.is_price and one.spent)]
    return [one for unit in CLOCKS for one in known if one.unit == unit]


def sheets_of(found: Findings, bands: Mapping[str, Band]) -> Iterator[Sheet]:
    """Yield the sheets, one per picture: its title, and the label and look of each variant."""
    if 0 < len(bands) <= MOST_LINES:
        yield "", {name: (name, look(i)) for i, name in enumerate(found.variants) if name in bands}
        return
    alone: list[str] = []
    for family in found.families:
        steps = [step for step in family.steps if step.variant in bands]
        if len(family.steps) == 1:
            alone += [step.variant for step in steps]
        elif steps:
            looks = ladder_looks(len(steps))
            yield (
                family.label,
                {step.variant: (step.label, one) for step, one in zip(steps, looks, strict=True)},
            )
    for start in range(0, len(alone), MOST_LINES):
        names = alone[start : start + MOST_LINES]
        yield "other variants", {name: (name, look(i)) for i, name in enumerate(names)}


def _curve(
    found: Findings,
    curve: Curve,
    clock: Measure,
    bands: Mapping[str, Band],
    looks: Mapping[str, tuple[str, Look]],
    title: str,
    number: int,
) -> Picture:
    figure, axes = canvas()
    for name, (label, style) in looks.items():
        draw_band(axes, bands[name], style, _counted(shown(label), found.runs[name]))
    baseline = found.study.baseline
    if baseline is not None and baseline in bands and baseline not in looks:
        _line(
            axes,
            bands[baseline],
            color=INK,
            linestyle=(0, (1, 2)),
            linewidth=1.1,
            label=f"baseline: {shown(baseline)}",
        )
    axes.set_ylim(*limits(list(bands.values())))
    share_axis(axes)
    cost_axis(axes, clock.unit)
    axes.set_xlabel("round" if clock is ROUNDS else clock.title)
    axes.set_ylabel(f"{curve.title}, test images")
    name = "-".join(["curve", curve.name, clock.name, *([str(number)] if title else [])]).replace("_", "-")
    caption = f"{capital(curve.title)} over {clock.title}{f': {title}' if title else ''}"
    says = f"Means over seeds; bands: 95 % intervals at each point, where there are {FEWEST_SEEDS} seeds or more."
    return picture(figure, name, caption, says)


def _counted(label: str, runs: Mapping[int, Reading]) -> str:
    return (
        label if len(runs) >= FEWEST_SEEDS else f"{label} ({len(runs)} seed{'s' if len(runs) != 1 else ''})"
    )


def draw_band(axes: Axes, one: Band, style: Look, label: str) -> None:
    """Draw a curve's means as a line and its intervals as a band with edges, as bands may overlap."""
    few = len(one.spent) <= 25
    _line(
        axes,
        one,
        color=style.color,
        linestyle=style.dash,
        marker=style.marker,
        markersize=3.5,
        markevery=1 if few else len(one.spent) // 12,
        linewidth=1.4,
        label=label,
    )
    low = [value.low if value.low is not None else value.mean for value in one.values]
    high = [value.high if value.high is not None else value.mean for value in one.values]
    axes.fill_between(one.spent, low, high, color=style.color, alpha=0.12, linewidth=0)
    for edge in (low, high) if low != high else ():
        axes.plot(one.spent, edge, color=style.color, linestyle=style.dash, linewidth=0.5, alpha=0.6)


def _line(axes: Axes, one: Band, **style: object) -> None:
    axes.plot(one.spent, [value.mean for value in one.values], **style)  # type: ignore[arg-type]


def limits(bands: Sequence[Band], bounds: Bounds = (0.0, 1.0)) -> Bounds:
    """Return common axis limits for all pictures of a curve: those of all bands, within the possible range."""
    values = [value for one in bands for value in one.values]
    low = min(one.mean if one.low is None else one.low for one in values)
    high = max(one.mean if one.high is None else one.high for one in values)
    room = 0.08 * (high - low) + 0.002
    return max(bounds[0], low - room), min(bounds[1], high + room)
