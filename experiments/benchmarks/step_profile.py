"""Where the time of a tail's training step goes, by call of torch.

    taskset -c 3 python experiments/benchmarks/step_profile.py mcunet 2 64 asi
    ... NETWORK CONVOLUTIONS BATCH plain|floor|asi [--ranks 8|32] [--resolution 224] [--micro-batch N] [--rows 20]
    ... [--as-a-run] [--kinds]

It prints the median microseconds of the thread's processor time, summed over the step, of each call and sizes of its
tensors, longest first; with --kinds, of each kind of call. The first line is the step without the clock, which takes
time itself: about 4 microseconds a call. --as-a-run takes the quicker ways of a run's simulated steps.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from kernels import ALLOCATOR, RANKS, THREADS, Step, beside, compressed, medians, step_of, tail_of

if __name__ == "__main__" and os.environ.get("MALLOC_MMAP_MAX_") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR, **THREADS})

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fed_asi import layers
from fed_asi.methods import ASI, BiasOnly

REPEATS = 15
KINDS = {
    "views": "view _unsafe_view permute transpose expand unsqueeze select slice alias t split as_strided detach",
    "products": "mm bmm addmm addmv mv baddbmm",
    "convolutions": "convolution convolution_backward",
    "decompositions": "linalg_qr",
    "copies, new tensors": "clone copy_ _to_copy empty empty_strided new_zeros new_ones new_empty stack cat",
}  # all others: element by element, and sums
Call = tuple[str, str]


class Clock(TorchDispatchMode):
    """Records every call of torch: (its name, its tensors' sizes), and its microseconds."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Call, float]] = []

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run the call and time it."""
        started = time.thread_time()
        result = function(*args, **(kwargs or {}))
        taken = (time.thread_time() - started) * 1e6
        sizes = [tuple(value.shape) for value in args if isinstance(value, torch.Tensor)]
        self.calls.append(((str(function).removeprefix("aten."), str(sizes)), taken))
        return result


def chosen(given: argparse.Namespace) -> Step:
    """Return the requested step."""
    tail, shape = tail_of(given.network, given.convolutions, given.resolution)
    x, y = torch.randn(given.batch, *shape), torch.randint(0, 10, (given.batch,))
    if given.side == "plain":
        return step_of(copy.deepcopy(tail).eval(), x, y)
    last = x.to(memory_format=torch.channels_last)
    if given.side == "floor":
        return step_of(compressed(tail, BiasOnly()), last, y)
    ranks = RANKS[given.ranks]
    if given.micro_batch:
        ours = beside(tail, ASI((min(ranks[0], given.micro_batch), *ranks[1:])), given.micro_batch)
    else:
        ours = compressed(tail, ASI(ranks))
    if given.as_a_run:
        layers.remember_constants_(ours)
    return step_of(ours, last, y)


def kind_of(call: str) -> str:
    """Return the kind of a call, such as "mm.default"."""
    name = call.partition(".")[0]
    return next((kind for kind, names in KINDS.items() if name in names.split()), "element by element, sums")


def profile(step: Step) -> dict[Call, tuple[float, int]]:
    """Return each call's microseconds in one step and how often it is made, as medians over the repeats."""
    runs = []
    for _ in range(REPEATS):
        with Clock() as clock:
            step()
        runs.append(clock.calls)
    found: dict[Call, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for position, (call, _) in enumerate(runs[0]):
        taken = statistics.median(run[position][1] for run in runs)
        found[call] = (found[call][0] + taken, found[call][1] + 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network")
    parser.add_argument("convolutions", type=int)
    parser.add_argument("batch", type=int)
    parser.add_argument("side", choices=("plain", "floor", "asi"))
    parser.add_argument("--ranks", choices=tuple(RANKS), default="8")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--micro-batch", type=int, default=0, help="side by side; the batch holds many")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--as-a-run", action="store_true")
    parser.add_argument("--kinds", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    step = chosen(given)
    print(f"one step: {medians({'step': step}, 1.0, 'cpu')['step']:.2f} ms")
    found = profile(step)
    calls = sum(times for _, times in found.values())
    print(f"{calls} calls of torch, {sum(us for us, _ in found.values()) / 1e3:.2f} ms in them")
    if given.kinds:
        kinds: dict[Call, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
        for (name, _), (taken, times) in found.items():
            before = kinds[kind_of(name), ""]
            kinds[kind_of(name), ""] = (before[0] + taken, before[1] + times)
        found = kinds
    for (name, sizes), (taken, times) in sorted(found.items(), key=lambda item: -item[1][0])[: given.rows]:
        print(f"{taken:9.0f} us {times:4d} x {name:32s} {sizes}")


if __name__ == "__main__":
    main()
