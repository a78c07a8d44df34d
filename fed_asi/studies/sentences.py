"""A study's result as sentences, made from its statistics, claiming no more than they support."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fed_asi.studies.findings import Findings, Row
from fed_asi.studies.front import on_front
from fed_asi.studies.measures import ACCURACY, ROUNDS, Measure
from fed_asi.studies.statistics import FEWEST_SEEDS, Verdict
from fed_asi.studies.wording import Wording, seeds, wording
from fed_asi.texts import clipped

MOST_NAMED = 3  # the most variants named in a sentence; the others are counted
NAME_CHARS = 40
CHEAPER = 1.05  # how many times less a price must be to be called so; it is written with one decimal
EVEN = (Verdict.OPEN, Verdict.EQUAL)
SAID = {
    Verdict.HIGHER: "is higher",
    Verdict.LOWER: "is lower",
    Verdict.OPEN: "cannot be told apart",
    Verdict.EQUAL: "is equal in every seed",
    Verdict.CONSTANT: "has the same difference in every seed",
}

Rows = Mapping[str, Row]


def answer(found: Findings) -> list[str]:
    """Return the study's result as sentences: on accuracy, on cost, and on what limits the conclusions."""
    rows = found.rows.get(ACCURACY)
    if rows is None:
        return ["No run of this study is finished, or none has evaluated its model: there is no result yet."]
    words = wording(ACCURACY, rows.values())
    baseline = found.study.baseline
    if baseline is None:
        said = [_highest(rows, words), "No baseline is named, so no difference is tested."]
    elif rows[baseline].estimate is None:
        said = [
            _highest(rows, words),
            f"The baseline {quoted(baseline)} has no finished run, so no difference is tested.",
        ]
    else:
        said = [_compared(rows, baseline, words), *_cheaper(found, rows, baseline, words)]
    costs = list(_costs(found))
    return [
        *(costs if found.study.kind == "cost" else []),
        *said,
        *_on_the_front(found),
        *([] if found.study.kind == "cost" else costs),
        *_reserves(found, rows),
    ]


def quoted(name: str) -> str:
    """Return a variant's name quoted for a sentence."""
    return f"\u201c{clipped(name, NAME_CHARS)}\u201d"


def _level(row: Row, words: Wording) -> str:
    one = row.estimate
    if one is None:
        return ""
    interval = f", {words.span(one.low, one.high)}" if one.low is not None and one.high is not None else ""
    return f"{words.value(one.mean)} %{interval}, {seeds(one.count)}"


def _highest(rows: Rows, words: Wording) -> str:
    means = {name: row.estimate.mean for name, row in rows.items() if row.estimate is not None}
    name = max(means, key=lambda one: means[one])
    return f"The highest mean accuracy is that of {quoted(name)} ({_level(rows[name], words)})."


def _compared(rows: Rows, baseline: str, words: Wording) -> str:
    parts = []
    for verdict, said in SAID.items():
        names = _with(rows, (verdict,))
        if names:
            parts.append(f"{said} with {_listed(names, rows, words)}")
    held = f"{quoted(baseline)} ({_level(rows[baseline], words)})"
    if not parts:
        return f"There are too few seeds to compare anything with {held}."
    return f"Compared with {held}, accuracy {'; '.join(parts)}."


def _with(rows: Rows, verdicts: Sequence[Verdict]) -> list[str]:
    """Return the variants with one of these verdicts, the largest difference first."""
    found = {
        name: abs(row.difference.mean or 0.0)
        for name, row in rows.items()
        if row.difference is not None and row.difference.verdict in verdicts
    }
    return sorted(found, key=lambda name: -found[name])


def _listed(names: Sequence[str], rows: Rows, words: Wording) -> str:
    shown = [f"{quoted(name)}{_change(rows[name], words)}" for name in names]
    if len(names) > MOST_NAMED:
        return f"{len(names)} variants, from {shown[0]} to {shown[-1]}"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _change(row: Row, words: Wording) -> str:
    one = row.difference
    if one is None or one.mean is None or one.verdict is Verdict.EQUAL:
        return ""
    known = one.low is not None and one.high is not None and one.se
    interval = f", {words.change_span(one.low or 0.0, one.high or 0.0)}" if known else ""
    return f" ({words.change(one.mean)} points{interval})"


def _cheaper(found: Findings, rows: Rows, baseline: str, words: Wording) -> Iterator[str]:
    """Yield a sentence on the cheapest variant not shown to be worse than the baseline, by the first such price."""
    level = [*_with(rows, (Verdict.HIGHER,)), *_with(rows, EVEN)]
    for measure in found.prices:
        prices = _means(found, measure)
        own = prices.get(baseline)
        cheaper = [name for name in level if own is not None and prices.get(name, own) * CHEAPER < own]
        if own is None or not cheaper:
            continue
        name = min(cheaper, key=lambda one: prices[one])
        cost = wording(measure, found.rows[measure].values())
        yield (
            f"{quoted(name)} needs {cost.value(prices[name])} of {measure.title} instead of {cost.value(own)}, "
            f"{_times(own / prices[name])} times less{_room(rows[name], words)}."
            if prices[name]
            else f"{quoted(name)} needs no {measure.title}{_room(rows[name], words)}."
        )
        return


def _room(row: Row, words: Wording) -> str:
    """Return how much lower an accuracy that was not told apart may be: that verdict does not prove equality."""
    one = row.difference
    if one is None or one.low is None or one.low >= 0 or one.verdict is not Verdict.OPEN:
        return ""
    return f"; its accuracy may still be up to {words.value(-one.low)} points lower"


def _means(found: Findings, measure: Measure) -> dict[str, float]:
    rows = found.rows.get(measure, {})
    return {name: row.estimate.mean for name, row in rows.items() if row.estimate is not None}


def _on_the_front(found: Findings) -> Iterator[str]:
    for measure in found.prices:
        if len(set(_means(found, measure).values())) > 1:
            names = on_front(found, measure, ACCURACY)
            if len(names) <= 2 * MOST_NAMED:
                listed = ", ".join(quoted(name) for name in names)
                yield f"Judged by the means, no variant beats these in both accuracy and {measure.title}: {listed}."
            return


def _times(ratio: float) -> str:
    """Return a ratio with three significant digits, without an exponent."""
    rounded = float(f"{ratio:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:g}"


def _costs(found: Findings) -> Iterator[str]:
    """Yield sentences on the rounds to the target, and on the variants that never reached it."""
    costs = {name: cost for name, cost in found.costs.get(ROUNDS, {}).items() if cost.values}
    if not costs:
        return
    target = f"{100 * (found.study.target or 0):.4g} %"
    enough = {name for name, cost in costs.items() if len(cost.values) >= FEWEST_SEEDS} or costs.keys()
    medians = {
        name: cost.median for name, cost in costs.items() if cost.median is not None and name in enough
    }
    if not any(cost.reached for cost in costs.values()):
        yield f"No run reached {target}."
        return
    words = Wording("rounds")
    if medians:
        least = min(medians.values())
        names = [quoted(name) for name, median in medians.items() if median == least]
        yield f"{target} took the fewest rounds with {_some(names)}: {words.value(least)} in the median."
    partly = sum(0 < cost.reached < len(cost.values) for cost in costs.values())
    never = sum(not cost.reached for cost in costs.values())
    parts = [f"{never} never reached {target}"] if never else []
    parts += [f"{partly} reached {target} with only some of their seeds"] if partly else []
    if parts:
        yield f"Of {len(costs)} variants, {' and '.join(parts)}."


def _some(names: Sequence[str]) -> str:
    return f"{', '.join(names[:MOST_NAMED])}{_more(len(names))}"


def _reserves(found: Findings, rows: Rows) -> Iterator[str]:
    counts = [row.estimate.count for row in rows.values() if row.estimate is not None]
    if max(counts) < FEWEST_SEEDS:
        yield (
            f"With {seeds(max(counts))} there is no interval, and no difference is called higher or lower: "
            f"that needs {FEWEST_SEEDS} seeds."
        )
    elif min(counts) < FEWEST_SEEDS:
        few = [
            quoted(name) for name, row in rows.items() if row.estimate and row.estimate.count < FEWEST_SEEDS
        ]
        yield f"Too few seeds to conclude anything about {_some(few)}."
    if len({frozenset(runs) for runs in found.runs.values() if runs}) > 1:
        yield "Variants have different seeds. Only the differences from the baseline compare the same seeds."
    if found.gaps:
        total = len(found.study.cells)
        yield f"{len(found.gaps)} of {total} runs {'is' if len(found.gaps) == 1 else 'are'} missing."


def _more(count: int) -> str:
    return f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
