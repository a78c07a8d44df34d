"""Figures of the frontier: the accuracy that each byte, second and joule buys, and the effect of a setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fed_asi.results.drawing import FAINT, INK, shown, tick
from fed_asi.studies.drawing import (
    Label,
    Look,
    Picture,
    canvas,
    capital,
    cost_axis,
    label_points,
    look,
    picture,
    share_axis,
)
from fed_asi.studies.findings import Findings, Row
from fed_asi.studies.front import on_front
from fed_asi.studies.measures import ACCURACY, WORST_CLASS, Measure
from fed_asi.studies.statistics import FEWEST_SEEDS, Estimate

FEW = 8  # the most variants whose names are written beside their points
BARS = f"Bars: 95 % intervals over seeds, where there are {FEWEST_SEEDS} or more."

Rows = Mapping[str, Row]
Estimates = Mapping[str, Estimate]


def frontiers(found: Findings) -> Iterator[Picture]:
    """Yield figures of accuracy and worst class against each price that differs between variants."""
    for price in found.prices:
        prices = _estimates(found.rows.get(price, {}))
        if len({one.mean for one in prices.values()}) < 2:
            continue
        for quality in (ACCURACY, WORST_CLASS):
            if quality in found.rows:
                yield _frontier(found, price, prices, quality)


def ladders(found: Findings) -> Iterator[Picture]:
    """Yield figures of accuracy and worst class over the size in which variants differ, unless it is in bytes."""
    steps = [step for family in found.families for step in family.steps if family.key is not None]
    key = next((family.key for family in found.families if family.key is not None), None)
    if key is None or any(_is_in_bytes(step.label) or step.size is None for step in steps):
        return
    for quality in (ACCURACY, WORST_CLASS):
        if quality in found.rows:
            yield _ladder(found, key, quality)


def _is_in_bytes(label: str) -> bool:
    """Return whether a size is written in bytes."""
    return label.endswith("B") or label == "unlimited"


def _estimates(rows: Rows) -> dict[str, Estimate]:
    return {name: row.estimate for name, row in rows.items() if row.estimate is not None}


def _frontier(found: Findings, price: Measure, prices: Estimates, quality: Measure) -> Picture:
    values = _estimates(found.rows[quality])
    points = {name: (prices[name].mean, one.mean) for name, one in values.items() if name in prices}
    figure, axes = canvas()
    _draw_front(axes, points, on_front(found, price, quality))
    looks = {family.label: look(i) for i, family in enumerate(found.families)}
    for family in found.families:
        names = [step.variant for step in family.steps if step.variant in points]
        _draw_family(axes, family.label, names, prices, values, looks[family.label])
    _baseline(axes, found, values)
    axes.margins(x=0.12)
    cost_axis(axes, price.unit, [x for x, _ in points.values()])
    axes.set_xlabel(price.title)
    axes.set_ylabel(_quality_label(quality))
    share_axis(axes)
    if len(points) <= FEW and all(len(family.steps) == 1 for family in found.families):
        _label_directly(figure, axes, points, looks)
    return picture(
        figure,
        f"frontier-{quality.name}-{price.name}".replace("_", "-"),
        f"{capital(quality.title)} against {price.title}",
        f"{_lines(found)}The grey steps are the front of the means: no variant is better in both. {BARS}",
    )


def _lines(found: Findings) -> str:
    keys = dict.fromkeys(family.key for family in found.families if family.key is not None)
    return "".join(f"Lines join variants that differ only in {key}. " for key in keys)


def _quality_label(quality: Measure) -> str:
    return "accuracy of the worst class" if quality is WORST_CLASS else "accuracy on the test images"


def _draw_front(axes: Axes, points: Mapping[str, tuple[float, float]], names: Sequence[str]) -> None:
    held = [points[name] for name in names]
    if len(held) > 1:
        axes.plot(
            [x for x, _ in held],
            [y for _, y in held],
            drawstyle="steps-post",
            color=FAINT,
            alpha=0.55,
            linewidth=5,
            solid_capstyle="round",
            zorder=1,
            label="front of the means",
        )


def _draw_family(
    axes: Axes, label: str, names: Sequence[str], across: Estimates | None, up: Estimates, style: Look
) -> None:
    """Draw the points of a family with their intervals, joined by a line if there are several."""
    if not names or across is None:
        return
    xs, ys = [across[name].mean for name in names], [up[name].mean for name in names]
    axes.errorbar(
        xs,
        ys,
        xerr=_bars([across[name] for name in names]),
        yerr=_bars([up[name] for name in names]),
        color=style.color,
        marker=style.marker,
        linestyle=style.dash if len(names) > 1 else "none",
        markersize=5.5,
        markeredgecolor="#ffffff",
        markeredgewidth=0.6,
        linewidth=1.3,
        elinewidth=1,
        capsize=2,
        zorder=3,
        label=shown(label),
    )


def _bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    low = [one.mean - one.low if one.low is not None else 0.0 for one in estimates]
    high = [one.high - one.mean if one.high is not None else 0.0 for one in estimates]
    return [[max(0.0, value) for value in low], [max(0.0, value) for value in high]]


def _baseline(axes: Axes, found: Findings, values: Estimates) -> None:
    name = found.study.baseline
    if name is not None and name in values:
        axes.axhline(
            values[name].mean,
            color=INK,
            linewidth=0.9,
            linestyle=(0, (1, 2)),
            zorder=2,
            label=f"baseline: {shown(name)}",
        )


def _label_directly(
    figure: Figure, axes: Axes, points: Mapping[str, tuple[float, float]], looks: Mapping[str, Look]
) -> None:
    """Write names beside their points instead of in the legend, if there is room."""
    labels = [Label(tick(name), *point, looks[name].color) for name, point in points.items()]
    if label_points(figure, axes, labels):
        for container in axes.containers:
            container.set_label("_beside its point")


def _ladder(found: Findings, key: str, quality: Measure) -> Picture:
    values = _estimates(found.rows[quality])
    figure, axes = canvas()
    for i, family in enumerate(found.families):
        steps = [step for step in family.steps if step.variant in values and step.size is not None]
        across = {step.variant: Estimate(1, step.size or 0.0) for step in steps}
        _draw_family(axes, family.label, list(across), across, values, look(i))
    _baseline(axes, found, values)
    axes.set_xlabel(key)
    axes.set_ylabel(_quality_label(quality))
    share_axis(axes)
    name = f"setting-{quality.name}".replace("_", "-")
    return picture(figure, name, f"{capital(quality.title)} over {key}", BARS)
