"""What a mixed fleet gains by each way of averaging, and by where plans are calibrated.

    python experiments/federated_value.py --data-dir DATA --weights-dir WEIGHTS
    python experiments/federated_value.py --table docs/federated.md

experiments/fleets/mixed.toml under each line of VARIANTS, three seeds (weights of the head, shards, cohorts).
Resumable: every finished run is a row of OUT/rows.csv; several processes may work on one folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from centralised import Rows  # the sibling module
from rich.console import Console

from fed_asi.fleets.file import load_config
from fed_asi.results.progress import Terminal
from fed_asi.results.store import RunStore
from fed_asi.rounds.run import run_loop

FLEET = Path(__file__).parent / "fleets" / "mixed.toml"
POOR = ("8-kib", "32-kib")
ALL = (*POOR, "256-kib", "1-mib")
VARIANTS = {
    "average by examples": [],
    "by examples and gradient captured": ["aggregate.weights=captured"],
    "only tensors captured to a half": ["aggregate.min_fidelity=0.5"],
    "only the rich (256 KiB and more)": [f"groups.{name}.budget=16" for name in POOR],
    "head only": ["method.name=head"],
    "everyone like the poorest (8 KiB)": [f'groups.{name}.budget="8 KiB"' for name in ALL],
    "calibrated on each device, 32 images": ["method.calibration=device", "method.calibration_images=32"],
    "calibrated by 8 devices' sums, 32 images each": [
        "method.calibration=federated",
        "method.calibration_images=32",
    ],
}


@dataclass
class Row:
    """One finished run; accuracies in percent of 5,000 images, `took_part` of 1, bytes up of one device-round."""

    variant: str
    seed: int
    accuracy: float
    worst_class: float
    took_part: float
    planned_bytes: int
    bytes_up: int
    seconds: float


def run(variant: str, seed: int, out: Path, data_dir: Path | None, weights_dir: Path | None) -> Row:
    """Return the row of one run of the fleet."""
    began = time.monotonic()
    config = load_config(FLEET, ["compute.backend=loop", f"seed={seed}", *VARIANTS[variant]])
    folder = out / "-".join([*"".join(c if c.isalnum() else " " for c in variant).split(), str(seed)])
    shutil.rmtree(folder, ignore_errors=True)
    run_loop(config, folder, data_dir=data_dir, weights_dir=weights_dir, watcher=Terminal(Console()))
    with RunStore.read(folder) as store:
        last = list(store.rounds())[-1]
        devices = list(store.device_rounds())
    trained = [d for d in devices if d.outcome == "trained"]
    return Row(
        variant,
        seed,
        round(100 * (last.accuracy or 0.0), 2),
        round(100 * (last.worst_class_accuracy or 0.0), 2),
        round(len(trained) / len(devices), 3),
        max(d.planned_bytes or 0 for d in trained),
        int(np.median([d.bytes_up for d in trained])),
        round(time.monotonic() - began, 1),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--weights-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/federated"))
    parser.add_argument("--variants", nargs="+", choices=[*VARIANTS], default=[*VARIANTS])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", type=Path, help="write the table of the finished runs and stop")
    arguments = parser.parse_args(argv)
    rows = Rows(arguments.out, Row)
    if arguments.table:
        arguments.table.write_text(table(rows.read()))
        return 0
    os.environ.setdefault("FED_ASI_FEATURES_DIR", str(arguments.out.resolve() / "features"))
    for seed in arguments.seeds:
        for variant in arguments.variants:
            done = any((r.variant, r.seed) == (variant, seed) for r in rows.read())
            if not done and rows.claim(f"{variant} {seed}"):
                row = run(variant, seed, arguments.out, arguments.data_dir, arguments.weights_dir)
                rows.add(row)
                print(f"{variant}, seed {seed}: {row.accuracy} % in {row.seconds} s", flush=True)
    return 0


def table(rows: Sequence[Row]) -> str:
    """Return the page: a line a variant, mean and standard error over the seeds."""
    lines = [HEADER]
    for variant in VARIANTS:
        found = [row for row in rows if row.variant == variant]
        if found:
            accuracy, worst = (_mean([getattr(r, k) for r in found]) for k in ("accuracy", "worst_class"))
            part = np.mean([r.took_part for r in found])
            up = np.mean([r.bytes_up for r in found]) / 1024
            lines.append(
                f"| {variant} | {accuracy} | {worst} | {100 * part:.0f} % | {up:,.0f} | {len(found)} |"
            )
    return "\n".join([*lines, FOOTER])


def _mean(values: Sequence[float]) -> str:
    spread = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.1f}" + (f" ± {spread:.1f}" if len(values) > 1 else "")


HEADER = """# What a mixed fleet gains

`python experiments/federated_value.py --data-dir DATA --weights-dir WEIGHTS`, then with `--table docs/federated.md`.

`experiments/fleets/mixed.toml`: 100 devices, 40 of 8 KiB, 30 of 32 KiB, 20 of 256 KiB, 10 of 1 MiB; 20,000 CIFAR-10
images in Dirichlet(0.3) shards, 10 devices a round, 20 rounds, MCUNet at 128x128, any subset of the last eight
convolutions, learning rate 0.05 for all. Accuracy and worst class on x_train[45000:] (5,000 images), mean and standard
error over seeds; "took part" is the share of the device-rounds asked that trained; "KiB up" is what one of them sends.
Every run: [federated.csv](federated.csv). They were made before commit db77862, whose quicker trunk gives the same
features to 1e-5, and b1bcbaf, which cuts micro-batches of few pixels more exactly; new runs differ by noise.

| | accuracy, % | worst class, % | took part | KiB up | seeds |
|---|---|---|---|---|---|"""

FOOTER = """
Leaving out the devices with less than 256 KiB costs points, most of them in the worst class; a head alone costs
more. The three ways of averaging cannot be told apart here, and 8 KiB for everyone does as well as the mixed
budgets: with micro-batches of one, plans of 8 KiB capture most of the gradient already. Plans from 32 images a
device are somewhat behind those from the server's 128.

## Whose images plans are made from

`[method] calibration` in a fleet file:

* `"server"`: the server's public images, once; the profile goes to every worker with the run's other files.
* `"device"`: each device profiles its own images when it is first asked, at the weights from before the first
  round, so that its plans depend on seed and device alone. In the simulation that costs about 13 s of a core a
  device (MCUNet, eight layers, 32 images), which is what the line with fewer seeds is short of.
* `"federated"`: `calibration_devices` devices send sums in two passes. First channel sums and, for every layer,
  micro-batch and mode, the eigenvalues of the mode's Gram matrix summed over micro-batches. Such spectra add up
  across devices (a test holds two devices' sums against their images together), and they are all that ranks are
  proposed from. Then each device tries the forms proposed from everyone's spectra on its own images and sends a
  squared error of dW and the gradient captured for each; these are averaged, weighted by images. Errors do not
  add up across devices (their gradients have cross terms), so the average is of what a form does to one
  device's own gradient. Whole Gram matrices are not needed, and are not sent.

What leaves a device says how strong each channel's and each mode's activations are on its images, and how well
forms fit its gradient: statistics of a class balance could be read from it, an image could not. No activation,
gradient or image is sent. A device that fails in either pass is left out and named in the report. All three
give the same bits in the loop and on Flower, and on a resume (tests/rounds/test_pooled_calibration.py,
tests/flower/test_simulation.py).
"""

if __name__ == "__main__":
    sys.exit(main())
