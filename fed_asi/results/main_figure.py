"""A run's main figure: the cost of its budgets if devices have twins, or else what a single run can say.

Groups hold different images, so a comparison of their accuracies says nothing about their budgets. A comparison of
each device with its own twin does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from fed_asi.results.drawing import INK, bytes_axis, dots, group_colors, panels, shown
from fed_asi.results.estimate import FEWEST, Estimate
from fed_asi.results.figure_tables import mean_of
from fed_asi.results.summary import DeviceResult, GroupResult, Summary
from fed_asi.texts import clipped

EACH = (
    "Dots: devices, each the mean over its rounds. Rings: the mean over a group's devices, and its 95 % interval where "
    f"there are {FEWEST} or more."
)
BYTES = "saved activations of the largest step, one device"
SAID = 4  # groups in a sentence
POINTS, COSINES = 2.0, 0.05  # the least range of an axis, so that it does not magnify noise


@dataclass(frozen=True, slots=True)
class MainFigure:
    """The figure's title, what it says and cannot say, and what draws it."""

    title: str
    says: str
    draw: Callable[[Figure, Summary], None]


def main_figure(summary: Summary) -> MainFigure:
    """Return the main figure of a run, which depends on whether its devices have twins."""
    if summary.twins == "plain":
        return MainFigure(
            "What budget and method cost", _cost_says(summary, "by plain training of the same layers"), _cost
        )
    if summary.twins is not None:
        return MainFigure("What the budget costs", _cost_says(summary, "without its budget"), _cost)
    return MainFigure(
        "What the bytes capture and what devices gain",
        f"{_bought_says(summary)} Groups have different images, so a difference between groups does not show what "
        "their budgets cost; a run with measure.twins = true does.",
        _bought,
    )


def _cost_says(summary: Summary, how: str) -> str:
    known = [one for one in summary.groups if one.twin_difference is not None]
    ends = "; ".join(f"{clipped(one.name, 40)} {mean_of(one.twin_difference)}" for one in known[:SAID])
    return (
        f"At 0 a device is as accurate as its twin; here, in points: {ends}. A twin has the same weights, images and "
        f"order, trained {how}. Left: a device's accuracy on its own held-out images minus its twin's. Right: the "
        "cosine of their two updates. A device that cannot train within its budget keeps the weights it was sent "
        f"(cross). {EACH}"
    )


def _bought_says(summary: Summary) -> str:
    known = [one.gradient_captured for one in summary.groups if one.gradient_captured is not None]
    if not known:
        return EACH
    low, high = min(one.mean for one in known), max(one.mean for one in known)
    span = " to ".join(dict.fromkeys(f"{100 * one:.1f}" for one in (low, high)))
    return f"Plans capture {span} % of the gradient; plain training is 100 %. {EACH}"


def _cost(figure: Figure, summary: Summary) -> None:
    left, right = panels(figure, 2)
    versus = "plain training" if summary.twins == "plain" else "no budget"
    left.axhline(0.0, color=INK, linewidth=1, linestyle=":", label=f"its twin: {versus}")
    right.axhline(1.0, color=INK, linewidth=1, linestyle=":")
    _spread(left, summary, lambda one: one.twin_difference)
    _spread(right, summary, lambda one: one.twin_cosine)
    low, high = left.get_ylim()
    left.set_ylim(min(low, -POINTS / 100), max(high, POINTS / 100))
    left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}"))
    low = min(right.get_ylim()[0], 1 - COSINES)
    right.set_ylim(low, 1 + 0.05 * (1 - low))
    right.set_xlim(left.get_xlim())
    left.set_ylabel("accuracy minus its twin's, points")
    right.set_ylabel("cosine of the two updates")


def _bought(figure: Figure, summary: Summary) -> None:
    left, right = panels(figure, 2)
    _spread(left, summary, lambda one: one.gradient_captured)
    _spread(right, summary, lambda one: one.gain)
    right.axhline(0.0, color=INK, linewidth=1, linestyle=":")
    low = min(left.get_ylim()[0], 1 - COSINES)
    left.set_ylim(low, 1 + 0.05 * (1 - low))
    left.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    left.set_xlim(right.get_xlim())
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:+.3g}"))
    left.set_ylabel("gradient that the plan captures\n(of the profiled layers' centred energy)")
    right.set_ylabel("accuracy gained in a round, points\n(its own held-out images)")


def _spread(
    axes: Axes,
    summary: Summary,
    value: Callable[[DeviceResult | GroupResult], float | Estimate | None],
) -> None:
    """Draw what each device has against its bytes, and the mean of each group with its interval."""
    colors = group_colors(summary)
    sizes: list[float | None] = []
    for group in summary.groups:
        mine = [one for one in summary.devices if one.group == group.name]
        places = [(_bytes(one), value(one), one.trained > 0) for one in mine]
        known = [(float(x), float(y), t) for x, y, t in places if x and isinstance(y, (int, float))]
        sizes += [x for x, _, _ in known]
        color = colors[group.name]
        dots(axes, [(x, y) for x, y, t in known if t], s=26, alpha=0.55, color=color, linewidths=0, zorder=5)
        dots(axes, [(x, y) for x, y, t in known if not t], s=36, color=color, marker="x", zorder=5)
        mean = value(group)
        if known and isinstance(mean, Estimate):
            _mean(axes, fmean(x for x, _, _ in known), mean, color, f"{shown(group.name)} (mean)")
    if not sizes:
        axes.text(0.5, 0.5, "not in this run's records", ha="center", transform=axes.transAxes, color=INK)
    bytes_axis(axes, "x", sizes)
    axes.set_xlabel(BYTES)


def _mean(axes: Axes, x: float, mean: Estimate, color: object, label: str) -> None:
    if mean.half is not None:
        axes.errorbar([x], [mean.mean], yerr=[mean.half], color=color, capsize=4, linewidth=1.6, zorder=3)
    dots(
        axes,
        [(x, mean.mean)],
        s=130,
        facecolors="white",
        edgecolors=color,
        linewidths=2,
        zorder=4,
        label=label,
    )


def _bytes(device: DeviceResult) -> int | None:
    """Return the place of a device on the axis: its measured bytes, or its budget if it never trained."""
    return device.measured_bytes if device.trained else device.budget_bytes
