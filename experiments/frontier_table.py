"""Write docs/plan_frontier.md and its figures from the finished rows of experiments/frontier.py.

python experiments/frontier_table.py --out runs/frontier --docs docs
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from centralised import Rows  # the sibling modules
from frontier import SUITES, Contestant, Row

from fed_asi.errors import FedAsiError
from fed_asi.plan_report import captured_share, figure
from fed_asi.planner import plan
from fed_asi.profiles import Profile
from fed_asi.units import format_bytes

HEADER = """# What a byte buys: plans for MCUNet on CIFAR-10

Accuracy on x_train[40000:] (10,000 images, standard error of one run about 0.4 points) after 6 epochs over 10,000
images of x_train[:40000], 128x128, effective batch 128, SGD; saved bytes are everything alive between forward and
backward of one micro-batch, planned and measured. Learning rates were tuned for every line on a split of its own
(4,000 images, 2 epochs, grid 0.025 to 0.3) unless "rate" says otherwise. Only finished runs are shown; "seeds" says
how many. The classifier is trained in all of them.

    python experiments/frontier.py --data-dir DATA --weights-dir WEIGHTS
    python experiments/frontier_table.py --out runs/frontier
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/frontier"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    arguments = parser.parse_args(argv)
    profile = Profile.load(arguments.out / "profile.json")
    rows = [row for row in Rows(arguments.out, Row).read() if row.phase == "final"]
    contestants = [c for suite in SUITES.values() for c in suite if any(r.contestant == c.key for r in rows)]
    text = [
        HEADER,
        accuracy_table(contestants, rows),
        exact_table(profile),
        time_table(profile),
        missing(rows),
    ]
    text += ["![accuracy against saved bytes](plan_frontier.svg)\n\n![bytes by layer](plan_bytes.svg)\n"]
    (arguments.docs / "plan_frontier.md").write_text("\n".join(text))
    draw(contestants, rows, arguments.docs / "plan_frontier.svg")
    planned = [c for c in contestants if c.name in ("planner", "ASI alone")]
    figure([(c.key, c.plan(profile)) for c in planned], arguments.docs / "plan_bytes.svg")
    return 0


def _of(contestant: Contestant, rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.contestant == contestant.key]


def accuracy_table(contestants: Sequence[Contestant], rows: Sequence[Row]) -> str:
    """Return one line a contestant: accuracy over seeds, bytes planned and measured, micro-batch, rate."""
    lines = ["| plan | budget | accuracy | seeds | planned | measured | micro-batch | layers | rate |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for contestant in contestants:
        found = _of(contestant, rows)
        accuracies = [row.accuracy for row in found]
        spread = f" ± {np.std(accuracies, ddof=1):.1f}" if len(found) > 1 else ""
        row = found[0]
        rate = f"{row.lr}" + (f" (of the {contestant.rate_of})" if contestant.rate_of else "")
        lines.append(
            f"| {contestant.name} | {contestant.budget or 'none'} | {np.mean(accuracies):.1f}{spread} | {len(found)} "
            f"| {format_bytes(row.planned_bytes)} | {format_bytes(row.measured_bytes)} | {row.micro_batch} "
            f"| {row.layers} | {rate} |"
        )
    return "\n".join(lines) + "\n"


def exact_table(profile: Profile) -> str:
    """Return the bytes of exact training at three micro-batches: accuracy is the same, as batch norm is frozen."""
    lines = ["## Exact training with micro-batches: the same accuracy in these saved bytes\n"]
    lines += ["| trained | micro-batch 1 | 16 | 128 |", "|---|---|---|---|"]
    for n in (0, 2, 4, 8, 14):
        options = {"layers": f"last {n}", "methods": ("vanilla", "mean"), "centered": False}
        sizes = [plan(profile, None, micro_batch=b, **options).planned_bytes for b in (1, 16, 128)]  # type: ignore[arg-type]
        lines.append(f"| last {n} | {' | '.join(format_bytes(size) for size in sizes)} |")
    return "\n".join(lines) + "\n"


def time_table(profile: Profile) -> str:
    """Return how long planning takes and what each objective's plan captures."""
    micro, layers = len(profile.micro_batches), len(profile.layers)
    lines = [
        f"## Planning time (of the processor) and gradient captured ({layers} layers, {micro} micro-batches)\n"
    ]
    lines += [
        "| budget | ms | captured | perplexity's plan | relative error's plan |",
        "|---|---|---|---|---|",
    ]
    for budget in ("8 KiB", "16 KiB", "64 KiB", "256 KiB", "1 MiB"):
        began = time.process_time()
        chosen = plan(profile, budget)
        spent = 1000 * (time.process_time() - began)
        shares = [captured_share(chosen, profile)]
        for objective in ("perplexity", "relative-error"):
            try:
                shares.append(captured_share(plan(profile, budget, objective=objective), profile))
            except FedAsiError:
                shares.append(float("nan"))
        lines.append(f"| {budget} | {spent:.0f} | {' | '.join(f'{share:.1%}' for share in shares)} |")
    return "\n".join(lines) + "\n"


def missing(rows: Sequence[Row]) -> str:
    """Return which contestants still lack runs, so that no line is read for more than it is."""
    every = [contestant for suite in SUITES.values() for contestant in suite]
    absent = [c.key for c in every if not _of(c, rows)]
    fewer = [c.key for c in every if 0 < len(_of(c, rows)) < 3]
    return (
        "## Not finished\n\nThe first command goes on where it stopped.\n\n"
        f"* no run yet: {'; '.join(absent) or 'none'}\n* fewer than three seeds: {'; '.join(fewer) or 'none'}\n\n"
        "Below three seeds, differences under a point say nothing, those between objectives least of all.\n"
    )


def draw(contestants: Sequence[Contestant], rows: Sequence[Row], path: Path) -> None:
    """Draw accuracy against saved bytes, a point a run's mean; exact training at micro-batches 1, 16 and 128."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    fig, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    names = dict.fromkeys(
        "exact, micro-batches" if c.name.startswith("vanilla") else c.name for c in contestants
    )
    for name in names:
        points = sorted(point for c in contestants for point in _points(c, name, rows))
        style = "-o" if name in ("planner", "ASI alone") else "--s"
        axis.plot([p[0] for p in points], [p[1] for p in points], style, label=name, markersize=5)
    axis.set_xscale("log", base=2)
    axis.set_xlabel("saved bytes of one micro-batch (KiB)")
    axis.set_ylabel("accuracy on x_train[40000:] (%)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    fig.savefig(path)
    plt.close(fig)


def _points(contestant: Contestant, name: str, rows: Sequence[Row]) -> list[tuple[float, float]]:
    exact = contestant.name.startswith("vanilla")
    if ("exact, micro-batches" if exact else contestant.name) != name:
        return []
    found = _of(contestant, rows)
    accuracy = float(np.mean([row.accuracy for row in found]))
    return [(found[0].planned_bytes / 1024, accuracy)]


if __name__ == "__main__":
    raise SystemExit(main())
