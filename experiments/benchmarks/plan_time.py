"""What planning with time costs: processor seconds of one device's plan, by what is asked.

    fed-asi plan --model mcunet --source cifar10 --data-dir DATA --profile mcunet.json
    python experiments/benchmarks/plan_time.py mcunet mcunet.json stm32f746 "16 KiB"

The round has 100 images, a number not seen before, so the work of each form has to be counted too. "again" is the next
plan for a device with the same number of images, such as one with another budget.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.compression.graph import analyse
from fed_asi.fleets.hardware import preset
from fed_asi.memory.work import network_of
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.duty import Duty
from fed_asi.planning.in_time import TimedPlan, plan_in_time
from fed_asi.planning.profile import Profile
from fed_asi.planning.search import plan
from fed_asi.planning.wishes import Wishes

DUTY = Duty({32: 3, 4: 1}, held=10, down_bytes=1 << 20)
SHARE = 0.9  # of the seconds that the plan without a limit takes


def rounds_of(network: str, profile: Profile, device: str) -> Callable[[], DeviceRound]:
    """Return a function that makes a device's round, with nothing counted yet."""
    resolution = models.resolution_of(network)
    model = models.build(network, 10, None, resolution).eval()
    image = torch.zeros(1, 3, resolution, resolution)
    trunk, tail = cut.cut(model, {layer.name for layer in profile.layers}, image)
    quick = cut.folded(trunk)
    with torch.inference_mode():
        features = quick(image)
    sizes = network_of(quick, image), network_of(tail.eval(), features.clone(), analyse(tail).pooled)
    return lambda: DeviceRound(*sizes, DUTY, preset(device).hardware)


def main(network: str, path: str, device: str, budget: str) -> None:
    """Print a line for each question."""
    profile = Profile.load(Path(path))
    fresh = rounds_of(models.canonical(network), profile, device)
    began = time.process_time()
    plan(profile, budget)
    print(f"bytes alone: {time.process_time() - began:.2f} s")
    free = plan_in_time(profile, budget, fresh(), Wishes(quicker=False))
    seconds = SHARE * (free.spent.sim_seconds if free.spent else 0.0)
    asked = {
        "no limit": Wishes(quicker=False),
        "the fastest of equal plans": Wishes(),
        f"at most {seconds:.1f} s": Wishes(seconds, quicker=False),
        "the most for each second": Wishes(objective="captured-per-second"),
    }
    for name, wishes in asked.items():
        round = fresh()
        first, again = (_timed(profile, budget, round, wishes) for _ in range(2))
        took = first[0].spent.sim_seconds if first[0].spent else 0.0
        print(f"{name}: {first[1]:.2f} s, again {again[1]:.2f} s; its round takes {took:.1f} s")


def _timed(profile: Profile, budget: str, round: DeviceRound, wishes: Wishes) -> tuple[TimedPlan, float]:
    began = time.process_time()
    return plan_in_time(profile, budget, round, wishes), time.process_time() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
