"""The Pareto front: the variants that no other one beats in both price and quality."""

from __future__ import annotations

from collections.abc import Mapping

from fed_asi.studies.findings import Findings
from fed_asi.studies.measures import Measure
from fed_asi.studies.statistics import FEWEST_SEEDS

Point = tuple[float, float]  # price (less is better), quality (more is better)


def front(points: Mapping[str, Point]) -> list[str]:
    """Return the names on the front, the cheapest first, with all of equal points."""
    held: list[str] = []
    best = float("-inf")
    for name in sorted(points, key=lambda one: (points[one][0], -points[one][1])):
        if points[name][1] > best or (held and points[name] == points[held[-1]]):
            held.append(name)
            best = points[name][1]
    return held


def on_front(found: Findings, price: Measure, quality: Measure) -> list[str]:
    """Return the variants on the front of the means, the cheapest first.

    If some have three seeds or more, those with fewer are left out, as a single lucky run could beat them all.
    """
    rows, prices = found.rows.get(quality, {}), found.rows.get(price, {})
    held = {
        name: (paid.estimate, row.estimate)
        for name, row in rows.items()
        if (paid := prices.get(name)) is not None and paid.estimate is not None and row.estimate is not None
    }
    enough = {name for name, (_, one) in held.items() if one.count >= FEWEST_SEEDS}
    return front({name: (x.mean, y.mean) for name, (x, y) in held.items() if name in (enough or held)})
