"""ONNX Runtime on the frozen trunk of four networks, as ratios to torch's time.

    pip install "fed-asi[fast]"
    python experiments/benchmarks/trunk_engines.py [--networks mcunet,resnet18] [--batches 4,8,16,32]
        [--resolution 128] [--layers 4] [--rounds 15]

A trunk is what is frozen before the last 4 convolutions, in its fast form (batch norms folded, channels last). It gets
32 images, like a group of the feature store: all at once in torch, in batches in ONNX Runtime. All figures of a row are
medians of the thread's own time, interleaved in one process with one thread; a ratio below 1 is faster. "apart" is the
largest difference of a number from torch's, relative to the largest number. "ready" is the time to write the trunk as
ONNX, once per process, in seconds; for the first network it includes the imports.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, fx

from fed_asi import models
from fed_asi.compression import cut
from fed_asi.compression.tune import tune_last_
from fed_asi.data.engines import OnnxRuntime, onnx_runtime
from fed_asi.data.features import GROUP

NETWORKS = "mcunet", "mobilenet_v2", "resnet18", "resnet34"


def trunk_of(network: str, layers: int, resolution: int) -> fx.GraphModule:
    """Return what is frozen before the last convolutions, in its fast form."""
    model = models.build(network, 10, resolution=resolution, seed=0).eval()
    trunk, _ = cut.cut(model, tune_last_(model, layers), torch.zeros(2, 3, resolution, resolution))
    return cut.folded(trunk)


def in_turns(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return each call's median time in this thread, in seconds; every round makes all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, own in zip(calls, times, strict=True):
            start = time.thread_time()
            call()
            own.append(time.thread_time() - start)
    return [statistics.median(own) for own in times]


@torch.inference_mode()
def infer(trunk: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the features, as the store computes them."""
    return trunk(images)


def row(network: str, batches: Sequence[int], given: argparse.Namespace) -> str:
    """Return a network's row of the table."""
    trunk = trunk_of(network, given.layers, given.resolution)
    images = torch.randn(
        GROUP, 3, given.resolution, given.resolution, generator=torch.Generator().manual_seed(0)
    )
    start = time.thread_time()
    engines: list[OnnxRuntime] = [onnx_runtime(trunk, images, batches[0])]
    ready = time.thread_time() - start
    engines += [onnx_runtime(trunk, images, size) for size in batches[1:]]
    calls = [partial(infer, one, images) for one in (trunk, *engines)]
    wanted, *found = [call() for call in calls]  # the first call of each is not timed
    apart = max(float((one - wanted).abs().max() / wanted.abs().max()) for one in found)
    by_torch, *others = in_turns(calls, given.rounds)
    ratios = " | ".join(f"{one / by_torch:.2f}" for one in others)
    size = "x".join(str(one) for one in wanted.shape[1:])
    return f"| {network} | {size} | {1e3 * by_torch:.0f} | {ratios} | {apart:.1e} | {ready:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batches", default="8")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    batches = [int(size) for size in given.batches.split(",")]
    columns = " | ".join(f"batches of {size}" for size in batches)
    head = [
        f"| network | a feature | torch, ms for {GROUP} images | {columns} | apart | ready, s |",
        f"|---|---|---:|{'---:|' * len(batches)}---:|---:|",
    ]
    print("\n".join(head), flush=True)
    for network in given.networks.split(","):
        print(row(network, batches, given), flush=True)


if __name__ == "__main__":
    main()
