"""How a study's numbers were computed, as sentences for its page."""

from __future__ import annotations

from collections.abc import Iterator

from fed_asi.studies.findings import Findings
from fed_asi.studies.statistics import FEWEST_SEEDS


def method(found: Findings) -> Iterator[str]:
    """Yield the sentences that a reader needs to check or to repeat the numbers."""
    listed = ", ".join(map(str, found.seeds))
    yield (
        f"Seeds: {listed}. A seed decides shards, cohorts and every random draw; all models are evaluated on the same "
        "images. Intervals are about other seeds with this data set, not about other data."
        if listed
        else "There is no finished run yet."
    )
    yield (
        "Means are over seeds. Intervals are 95 %, by Student's t over seeds, limited to the measure's range; each "
        f"holds for its number alone. With fewer than {FEWEST_SEEDS} seeds there is none. With three, an interval "
        "reaches 4.3 standard errors to each side and assumes that the seeds' values are nearly normal, which three "
        "values cannot show; a bootstrap of three values would cover far less than 95 %."
    )
    if found.study.baseline is not None:
        yield (
            f"Differences from the baseline \u201c{found.study.baseline}\u201d are paired by seed, over the seeds that "
            "both have (where these are fewer, the table gives their number), and tested by a two-sided paired t-test. "
            "For each measure, the p-values of all variants are corrected together by Holm's method; a variant that "
            "equals the baseline in every seed is counted with p = 1. \u201cHigher\u201d and \u201clower\u201d need a "
            "corrected p below 0.05 and an interval that excludes zero. Everything else is \u201cnot told apart\u201d, "
            "which does not mean equal. An interval holds for its comparison alone: among several, one may exclude "
            "zero by chance. If every seed differs by the same amount there is no spread to test, and only the amount "
            "is given."
        )
    if found.study.target is not None:
        yield (
            "The cost of a target is counted to the end of the first round whose evaluation reached it. Runs that "
            "never reached it are not dropped: in the median they count as above all others, and mean and interval "
            "are given only if every run reached it."
        )
    yield (
        "Saved bytes are those of the largest step of any device; bytes up and down, time and energy are sums over "
        "rounds. cells.csv has every value of every run, results.csv every statistic with its p-values, rounds.csv "
        "every round."
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
