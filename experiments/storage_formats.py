"""What a format of the frozen part costs in accuracy and saves in bytes: a linear probe of MCUNet's features.

python experiments/storage_formats.py

Features of the last spatial mean, all convolutions frozen; a ridge classifier on 2,000 training images of CIFAR-10,
judged on 2,000 test images. Bytes: MCUNet with its last four convolutions and head in training, micro-batch 1.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from fed_asi import data, device_memory, models, tune_last_
from fed_asi.compression import cut
from fed_asi.data.images import to_batch
from fed_asi.layers.copying import copied
from fed_asi.memory.device import DeviceMemory
from fed_asi.memory.stored import FORMATS, Format
from fed_asi.storage.trunk import calibrated, stored_trunk
from fed_asi.training.steps import training_mode_

NETWORK, RIDGE, AT_ONCE = "mcunet", 1e-2, 32
Array = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--resolution", type=int, default=128)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    model = models.build(NETWORK, 10, "imagenet").eval()
    source = data.load("cifar10")
    rows = source.split(512, 0, 0)  # the server's images, as in a run
    public = _batch(source.x_train[rows.public], chosen.resolution)
    train = rows.train[: chosen.images]
    x, y = _batch(source.x_train[train], chosen.resolution), source.y_train[train]
    tested, truth = _batch(source.x_test[: chosen.images], chosen.resolution), source.y_test[: chosen.images]
    trunk = cut.folded(cut.cut(model, [models.head_name(model)], public[:1])[0])
    start = time.perf_counter()
    ranges = calibrated(trunk, public)
    print(f"calibrated on {len(public)} images in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    print(
        "| frozen part | accuracy of the probe, % | features differ by | trunk's arena, KiB | flash, KiB |\n"
        "|---|---|---|---|---|"
    )
    whole = None
    for form in FORMATS:
        stored = stored_trunk(trunk, form, ranges)
        seen, judged = _features(stored, x), _features(stored, tested)
        whole = judged if whole is None else whole
        wrong = np.linalg.norm(judged - whole) / np.linalg.norm(whole)
        memory = _memory(model, public[:1], form)
        trunk_kib, flash = memory.trunk_bytes / 1024, memory.flash_bytes / 1024
        print(
            f"| {form} | {_probed(seen, y, judged, truth):.2f} | {wrong:.2%} | {trunk_kib:.1f} | {flash:.1f} |",
            flush=True,
        )


def _batch(images: NDArray[np.uint8], resolution: int) -> Tensor:
    mean, std = models.normalisation(NETWORK)
    return to_batch(images, resolution, mean, std)


def _features(trunk: fx.GraphModule, x: Tensor) -> Array:
    with torch.inference_mode():
        found = torch.cat([trunk(one) for one in torch.split(x, AT_ONCE)])
    return found.flatten(1).double().numpy()


def _probed(seen: Array, labels: NDArray[np.integer], judged: Array, truth: NDArray[np.integer]) -> float:
    """Return the accuracy, in percent, of ridge regression onto the classes."""
    mean, scale = seen.mean(0), seen.std(0) + 1e-9
    a = np.c_[(seen - mean) / scale, np.ones(len(seen))]
    b = np.c_[(judged - mean) / scale, np.ones(len(judged))]
    weights = np.linalg.solve(a.T @ a + RIDGE * len(a) * np.eye(a.shape[1]), a.T @ np.eye(10)[labels])
    return float(((b @ weights).argmax(1) == truth).mean() * 100)


def _memory(model: torch.nn.Module, image: Tensor, form: Format) -> DeviceMemory:
    model = copied(model)
    trained = tune_last_(model, 4)
    trunk, tail = cut.cut(model, {name.rpartition(".")[0] for name in trained}, image)
    training_mode_(tail)
    return device_memory(tail, image, torch.tensor([0]), trunk=cut.folded(trunk), storage=form)


if __name__ == "__main__":
    main()
