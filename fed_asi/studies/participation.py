"""Figures of the cost to a target, and of participation, with a row per variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from fed_asi.results.drawing import BAD, FAINT, INK, ON_DARK, ON_LIGHT, PAPER, tick
from fed_asi.studies.drawing import COLORS, SMALL, Picture, canvas, capital, cost_axis, picture
from fed_asi.studies.findings import Cost, Findings
from fed_asi.studies.measures import Measure

HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "+++", "ooo", "|||")
ROW = 0.23  # height in inches


def costs(found: Findings) -> Iterator[Picture]:
    """Yield a figure for every cost to the target that any run reached, with a point per run."""
    for measure, held in found.costs.items():
        counts = measure.is_price or measure.unit == "rounds"
        if counts and any(cost.reached for cost in held.values()):
            yield _cost(found, measure, held)


def _cost(found: Findings, measure: Measure, held: Mapping[str, Cost]) -> Picture:
    figure, axes = _rows(list(held))
    known = [value for cost in held.values() for value in cost.values.values() if value is not None]
    edge = max(known) * 1.12 if max(known) else 1.12
    for row, cost in enumerate(held.values()):
        there = [value for value in cost.values.values() if value is not None]
        lost = len(cost.values) - len(there)
        axes.plot(there, [row] * len(there), "o", color=COLORS[0], markersize=5, alpha=0.7, label="one seed")
        if cost.median is not None:
            axes.plot([cost.median], [row], "|", color=INK, markersize=13, markeredgewidth=2, label="median")
        if lost:
            axes.plot(
                [edge], [row], ">", color=BAD, markersize=6, markerfacecolor=PAPER, label="never got there"
            )
            axes.annotate(
                f"{lost} of {len(cost.values)}", (edge, row), (6, 0), textcoords="offset points", va="center",
                fontsize=SMALL, color=BAD,
            )  # fmt: skip
    axes.set_xlim(left=-0.02 * edge)
    cost_axis(axes, measure.unit)
    axes.set_xlabel(f"{measure.title} until the accuracy was {100 * (found.study.target or 0):.4g} %")
    return picture(
        figure,
        f"cost-{measure.name}".replace("_", "-"),
        f"{capital(measure.title)} to the target",
        "Counted to the end of the first round whose evaluation reached the target. In the median, a run that never "
        "reached it counts as above all others.",
    )


def participation(found: Findings) -> Iterator[Picture]:
    """Yield figures of the outcomes of asked devices and of each group's trainings; none if all always trained."""
    ends = {end for runs in found.runs.values() for run in runs.values() for end in run.outcomes}
    if ends <= {"trained"}:
        return
    yield _outcomes(found)
    groups = list(
        dict.fromkeys(g for runs in found.runs.values() for run in runs.values() for g in run.groups)
    )
    if len(groups) > 1:
        yield _groups(found, groups)


def _outcomes(found: Findings) -> Picture:
    names = [name for name in found.variants if found.runs[name]]
    kinds = [
        "trained",
        *sorted(
            {k for runs in found.runs.values() for run in runs.values() for k in run.outcomes} - {"trained"}
        ),
    ]
    figure, axes = _rows(names)
    left = [0.0] * len(names)
    for i, kind in enumerate(kinds):
        shares = [_share(found, name, kind) for name in names]
        axes.barh(
            range(len(names)), shares, left=left, height=0.72, color=_kind_color(i), hatch=HATCHES[i % len(HATCHES)],
            edgecolor=PAPER, linewidth=0.5, label=kind,
        )  # fmt: skip
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("of the times a device was asked")
    return picture(figure, "outcomes", "How asked devices ended", "All seeds of a variant together.")


def _kind_color(index: int) -> str:
    return COLORS[2] if index == 0 else (COLORS[1], COLORS[3], COLORS[4], COLORS[0], FAINT)[(index - 1) % 5]


def _share(found: Findings, name: str, kind: str) -> float:
    runs = found.runs[name].values()
    total = sum(sum(run.outcomes.values()) for run in runs)
    return sum(run.outcomes.get(kind, 0) for run in runs) / total if total else 0.0


def _groups(found: Findings, groups: list[str]) -> Picture:
    names = [name for name in found.variants if found.runs[name]]
    figure, axes = _rows(names, extra=0.5)
    shares = [[_trained(found, name, group) for group in groups] for name in names]
    filled = [[float("nan") if value is None else value for value in row] for row in shares]
    axes.imshow(filled, cmap="Blues", vmin=0, vmax=1.25, aspect="auto")
    axes.grid(False)
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            if value is not None and len(groups) <= 10:
                ink = ON_DARK if value > 0.8 else ON_LIGHT
                axes.text(
                    column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=SMALL, color=ink
                )
    axes.set_xticks(
        range(len(groups)), [tick(group) for group in groups], rotation=35, ha="right", fontsize=SMALL
    )
    axes.set_xlabel("group of devices")
    says = (
        "How often a group's devices trained, in percent of the times they were asked; all seeds of a variant "
        "together."
    )
    return picture(figure, "groups", "Who took part, by group", says)


def _trained(found: Findings, name: str, group: str) -> float | None:
    held = [run.groups[group] for run in found.runs[name].values() if group in run.groups]
    asked = sum(one.asked for one in held)
    return fmean([sum(one.trained for one in held) / asked]) if asked else None


def _rows(names: list[str], extra: float = 0.0) -> tuple[Figure, Axes]:
    """Return a figure and axes with a row per variant, the first on top."""
    figure, axes = canvas(1.0 + extra + ROW * len(names))
    axes.set_yticks(range(len(names)), [tick(name) for name in names], fontsize=SMALL)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    return figure, axes
