"""Does the clock tell the truth here? A calibrated device predicts the times of steps that it was not fitted on.

    fed-asi calibrate-device --out this-machine.toml
    python experiments/benchmarks/clock.py this-machine.toml

Four networks, ten forms, batches of 1 to 64: predicted over measured seconds.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fed_asi.fleets.clock import seconds_of
from fed_asi.fleets.hardware import Hardware, load
from fed_asi.training.measuring import CHECKPOINTING, Measured, measure

NETWORKS = ("mcunet", "mobilenet_v2", "resnet18", "resnet34")
FORMS = (
    "vanilla", "bias", "quantized(bits=8)", "quantized(bits=4)", "asi(ranks=(8, 8, 3, 3))",
    "asi(ranks=(1, 8, 3, 3), warm=False)", "asi(ranks=(8, 16, 4, 4), bits=8)",
    "asi(ranks=(8, 8, 3, 3), order='published')", "filter", CHECKPOINTING,
)  # fmt: skip
BATCHES = (1, 4, 16, 64)


def line(name: str, taken: list[Measured], device: Hardware) -> str:
    """Return a row: how far off predictions are, and whether they are too high or too low."""
    ratios = [seconds_of(one.work, device) / one.seconds for one in taken]
    off = [abs(ratio - 1) for ratio in ratios]
    middle = statistics.geometric_mean(ratios)
    half, most = 100 * statistics.median(off), 100 * float(np.quantile(off, 0.9))
    return f"| {name} | {len(off)} | {half:.0f} % | {most:.0f} % | {middle:.2f} |"


def main() -> None:
    device = load(Path(sys.argv[1])).hardware
    taken = list(measure(NETWORKS, FORMS, BATCHES, print))
    print("| steps | | median error | nine of ten within | predicted / measured |\n|---|---|---|---|---|")
    print(line("all", taken, device))
    groups: list[tuple[tuple[object, ...], Callable[[Measured], object]]] = [
        (NETWORKS, lambda one: one.network), (FORMS, lambda one: one.form), (BATCHES, lambda one: one.batch),
    ]  # fmt: skip
    for names, of in groups:
        for name in names:
            print(line(str(name), [one for one in taken if of(one) == name], device))


if __name__ == "__main__":
    main()
