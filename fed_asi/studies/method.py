"""How a study's numbers were computed, in sentences that stand on its page."""

from __future__ import annotations

from collections.abc import Iterator

from fed_asi.studies.findings import Findings
from fed_asi.studies.statistics import FEWEST_SEEDS


def method(found: Findings) -> Iterator[str]:
    """Yield what a reader must know to check or to repeat the numbers."""
    listed = ", ".join(map(str, found.seeds))
    yield (
        f"Seeds: {listed}. A seed decides shards, cohorts and every draw; the images that judge the model are the "
        "same for all. Intervals are about other seeds of this data set, not about other data."
        if listed
        else "There is no finished run yet."
    )
    yield (
        "Means are over seeds. Intervals: 95 %, Student's t over seeds, cut to what the measure can be; for each "
        f"number alone. Fewer than {FEWEST_SEEDS} seeds: no interval. With three it is 4.3 standard errors to each "
        "side and takes the seeds' values to be near normal, which three values cannot show; a bootstrap of three "
        "values would cover far less than it says."
    )
    if found.study.baseline is not None:
        yield (
            f"Differences from the baseline \u201c{found.study.baseline}\u201d are paired: seed by seed, over the "
            "seeds that both have (their number stands with the difference where it is less), by a two-sided paired "
            "t-test. For each measure, the p-values of all variants are corrected together by Holm's way; a variant "
            "that equals the baseline in every seed counts too, with p = 1. \u201cHigher\u201d and \u201clower\u201d "
            "need a corrected p below 0.05 and an interval without zero; all else is \u201cnot told apart\u201d, "
            "which is not the same as equal. An interval is of its comparison alone: of several, one without zero may "
            "be chance. Where every seed differs by the same amount there is no spread that a test could use, and only "
            "the amount is said."
        )
    if found.study.target is not None:
        yield (
            "The cost to a target is counted to the end of the first round whose evaluation reached it. A run that "
            "never did is never dropped: it counts as above all others in the median, and mean and interval are given "
            "only where every run got there."
        )
    yield (
        "Bytes are the largest step of any device; bytes up and down, time and energy the sum over rounds. "
        "Every value of every run is in cells.csv, every statistic with its p-values in results.csv, every round in "
        "rounds.csv."
    )
    versions = {
        package: run.versions[package]
        for runs in found.runs.values()
        for run in runs.values()
        for package in sorted(run.versions)
    }
    if versions:
        yield (
            "Versions: "
            + ", ".join(f"{package} {version}" for package, version in sorted(versions.items()))
            + "."
        )
