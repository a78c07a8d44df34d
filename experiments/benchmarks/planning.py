"""How long planning takes: the search alone on made-up layers, and the calibration it starts from.

    python experiments/benchmarks/planning.py --weights-dir WEIGHTS

Search: 42 layers of 64 candidates at 8 micro-batches, worth and bytes drawn at random and correlated as in
networks, nine budgets from tight to ample. Calibration: `profile` of tiny and of MCUNet on 32 images.
Processor time of one thread, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from fed_asi import models, seeds
from fed_asi.methods import Quantized
from fed_asi.planning.calibration import profile
from fed_asi.planning.profile import Candidate, LayerProfile, ModelFingerprint, Profile
from fed_asi.planning.search import plan
from fed_asi.units import format_bytes

LAYERS, CANDIDATES, MICRO_BATCHES = 42, 64, tuple(2**power for power in range(8))
BUDGETS = tuple(4096 * 2**power for power in range(9))
REPEATS = 3
IMAGES = 32


def made_up_profile(seed: int = 0) -> Profile:
    """Return a profile of LAYERS layers whose worths span orders of magnitude."""
    rng = seeds.rng(seed, "planning")
    layers = tuple(_layer(rng, index) for index in range(LAYERS))
    floors = {b: tuple(512 * b * (LAYERS - i) for i in range(LAYERS)) for b in MICRO_BATCHES}
    return Profile(ModelFingerprint("made up", (3, 32, 32), "float32"), layers, floors, 128)


def _layer(rng: np.random.Generator, index: int) -> LayerProfile:
    scale, bend = rng.lognormal(0, 2), rng.uniform(500, 8000)
    return LayerProfile(
        f"layer{index}", "Conv2d", (1,), index, 1, 1, 1.0, scale, 0.01 * scale, (0.0,),
        {b: tuple(_candidates(rng, b, scale, bend)) for b in MICRO_BATCHES},
        head=index == LAYERS - 1,
    )  # fmt: skip


def _candidates(rng: np.random.Generator, micro_batch: int, scale: float, bend: float) -> Iterator[Candidate]:
    for size in np.sort(rng.integers(1, 5000, CANDIDATES)) * 4:
        noise = rng.normal(0, 0.02 * scale)
        worth = float(scale * (1 - np.exp(-size / bend)) + noise)
        yield Candidate(Quantized(), int(size) * micro_batch, int(size) * micro_batch, 0.0, worth)


def spent(work: Callable[[], object]) -> list[float]:
    """Return the processor seconds of each of REPEATS repetitions, ascending."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return sorted(times)


def search_table() -> str:
    """Return the milliseconds of one `plan` at every budget."""
    made = made_up_profile()
    lines = ["| budget | plan, ms (median of 3) | used |", "|---|---|---|"]
    for budget in BUDGETS:
        times = spent(lambda budget=budget: plan(made, budget, methods=("quantized", "bias")))
        used = plan(made, budget, methods=("quantized", "bias")).planned_bytes / budget
        lines.append(f"| {format_bytes(budget)} | {1000 * times[len(times) // 2]:.0f} | {used:.0%} |")
    return "\n".join(lines)


def calibration_table(weights_dir: Path | None) -> str:
    """Return the seconds of `profile` for two networks: every layer of tiny, the last 14 of MCUNet."""
    lines = ["| network | pixels | layers | micro-batches | profile, s |", "|---|---|---|---|---|"]
    for name, resolution, last in (("tiny", 32, None), ("mcunet", 128, 14)):
        weights = None if name == "tiny" else "imagenet"
        model = models.build(name, 10, weights, resolution, weights_dir=weights_dir)
        convolutions = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)]
        trained = [*convolutions[-last:], models.head_name(model)] if last else None
        x = torch.randn(IMAGES, 3, resolution, resolution, generator=seeds.generator(0, "images"))
        y = torch.arange(IMAGES) % 10
        sizes = (1, 4, 16, IMAGES)
        began = time.process_time()
        found = profile(model, x, y, trained=trained, micro_batches=sizes)
        seconds = time.process_time() - began
        lines.append(f"| {name} | {resolution} | {len(found.layers)} | {len(sizes)} | {seconds:.1f} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--weights-dir", type=Path)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(search_table(), calibration_table(arguments.weights_dir), sep="\n\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
