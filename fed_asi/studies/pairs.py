"""Accuracy over rounds relative to the baseline, paired by seed: what the runs of a seed share cancels out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from matplotlib.ticker import FuncFormatter

from fed_asi.results.drawing import INK, shown
from fed_asi.studies.curves import Band, draw_band, limits, sheets_of
from fed_asi.studies.drawing import Look, Picture, canvas, capital, cost_axis, picture
from fed_asi.studies.findings import Findings
from fed_asi.studies.measures import CURVES, Curve
from fed_asi.studies.reading import Reading
from fed_asi.studies.statistics import FEWEST_SEEDS, estimate
from fed_asi.studies.wording import Wording


def paired(runs: Mapping[int, Reading], base: Mapping[int, Reading], curve: Curve) -> Band | None:
    """Return a variant's curve minus the baseline's, paired by seed; None with fewer than three common seeds."""
    both = [(runs[seed].curves, base[seed].curves) for seed in sorted(runs.keys() & base.keys())]
    held = [(own[curve.name], other[curve.name]) for own, other in both if curve.name in own.keys() & other]
    common = sorted(set.intersection(*(own.keys() & other.keys() for own, other in held))) if held else []
    if not common or len(held) < FEWEST_SEEDS:
        return None
    values = tuple(estimate([own[round] - other[round] for own, other in held]) for round in common)
    return Band(tuple(map(float, common)), values)


def pairs(found: Findings) -> Iterator[Picture]:
    """Yield figures of accuracy relative to the baseline over rounds; none without a baseline or with few pairs."""
    base = found.runs.get(found.study.baseline or "", {})
    bands = {
        name: made
        for name, runs in found.runs.items()
        if name != found.study.baseline and (made := paired(runs, base, CURVES[0])) is not None
    }
    sheets = list(sheets_of(found, bands))
    for number, (title, looks) in enumerate(sheets, start=1):
        yield _pair(found, bands, looks, (title, number) if len(sheets) > 1 else None)


def _pair(
    found: Findings,
    bands: Mapping[str, Band],
    looks: Mapping[str, tuple[str, Look]],
    sheet: tuple[str, int] | None,
) -> Picture:
    figure, axes = canvas()
    for name, (label, style) in looks.items():
        draw_band(axes, bands[name], style, shown(label))
    held = f"baseline: {shown(found.study.baseline or '')}"
    axes.axhline(0.0, color=INK, linestyle=(0, (1, 2)), linewidth=1.1, label=held)
    axes.set_ylim(*limits(list(bands.values()), (-1.0, 1.0)))
    low, high = axes.get_ylim()
    words = Wording("points", 1 if high - low < 0.06 else 0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: words.change(value)))
    cost_axis(axes, "rounds")
    axes.set_xlabel("round")
    axes.set_ylabel(f"{CURVES[0].title} against the baseline's, points")
    return picture(
        figure,
        f"pairs-{CURVES[0].name}{f'-{sheet[1]}' if sheet else ''}",
        f"{capital(CURVES[0].title)} against the baseline's, over rounds{f': {sheet[0]}' if sheet else ''}",
        "Means of the differences, paired by seed; bands: 95 % intervals of each round by itself, not corrected for "
        f"multiple comparisons. Variants with fewer than {FEWEST_SEEDS} pairs are left out.",
    )
