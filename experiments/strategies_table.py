"""What strategies and codecs gained, sent and held, as a table: a study's runs by variant.

fed-asi study experiments/studies/demo_strategies.toml
python experiments/strategies_table.py experiments/studies/demo_strategies.toml runs/demo_strategies
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fed_asi.results.estimate import estimate
from fed_asi.results.store import RunStore, is_begun
from fed_asi.studies.grid import expand
from fed_asi.studies.study_file import load_study

HEADER = (
    "| variant | accuracy, % | against the baseline, points | worst class, % | KiB up a device-round | KiB down | "
    "KiB held | KiB kept |\n|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Row:
    """One run: accuracies of its last round, from 0 to 1, and bytes of the devices that trained."""

    accuracy: float
    worst_class: float
    up: float  # mean over device-rounds, like `down`
    down: float
    held: int  # the largest, like `kept`
    kept: int


def is_finished(folder: Path) -> bool:
    """Return whether a folder has a finished run."""
    if not is_begun(folder):
        return False
    with RunStore.read(folder) as store:
        return store.run().status == "finished"


def row_of(folder: Path) -> Row:
    """Return the results of a finished run."""
    with RunStore.read(folder) as store:
        last = list(store.rounds())[-1]
        told = [one for one in store.device_rounds() if one.outcome == "trained"]
    return Row(
        last.accuracy or 0.0,
        last.worst_class_accuracy or 0.0,
        sum(one.bytes_up or 0 for one in told) / len(told),
        sum(one.bytes_down or 0 for one in told) / len(told),
        max(one.strategy_bytes or 0 for one in told),
        max(one.kept_bytes or 0 for one in told),
    )


def lines(variants: Mapping[str, Mapping[int, Row]], baseline: str | None) -> Iterator[str]:
    """Yield the table's lines. variants: rows by seed, by the variant's name; differences are paired by seed."""
    yield HEADER
    for name, rows in variants.items():
        base = variants.get(baseline or "", {})
        differences = [row.accuracy - base[seed].accuracy for seed, row in rows.items() if seed in base]
        told = [*rows.values()]
        cells = [
            name,
            points([row.accuracy for row in told]),
            points(differences, "+") if name != baseline else "",
            points([row.worst_class for row in told]),
            f"{sum(row.up for row in told) / len(told) / 1024:.1f}",
            f"{sum(row.down for row in told) / len(told) / 1024:.1f}",
            f"{max(row.held for row in told) / 1024:.1f}",
            f"{max(row.kept for row in told) / 1024:.1f}",
        ]
        yield f"| {' | '.join(cells)} |"


def points(shares: Sequence[float], sign: str = "") -> str:
    """Return a mean over seeds in points and, with three seeds or more, half of its 95 % interval."""
    found = estimate(100 * share for share in shares)
    if found is None:
        return ""
    return f"{found.mean:{sign}.1f}" + ("" if found.half is None else f" ± {found.half:.1f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", type=Path, help="of the study, such as runs/demo_strategies")
    given = parser.parse_args()
    study = load_study(given.study)
    variants: dict[str, dict[int, Row]] = {}
    for run in expand(study, given.folder / "runs"):
        if is_finished(run.cell.folder):  # a study that is still running has gaps
            variants.setdefault(run.cell.variant, {})[run.cell.seed] = row_of(run.cell.folder)
    print("\n".join(lines(variants, study.baseline)))


if __name__ == "__main__":
    main()
