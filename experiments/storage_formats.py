"""What each format of the frozen part costs in accuracy and saves in bytes: a linear probe on MCUNet's features.

python experiments/storage_formats.py

Features are those of the last spatial mean, with all convolutions frozen. A ridge classifier is fitted to training
images of CIFAR-10 and evaluated on test images. A loss is relative to float32 on the same images, with its standard
error. The last row rounds weights to eight bits and leaves activations in float32. Bytes are those of MCUNet training
its last four convolutions and head at micro-batch 1.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

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
from fed_asi.storage.frozen import store_frozen_
from fed_asi.storage.trunk import calibrated, stored_trunk
from fed_asi.training.steps import training_mode_

NETWORK, RIDGE, AT_ONCE, RESOLUTION = "mcunet", 1e-2, 32, 128
HEADER = """\
| frozen part | accuracy of the probe | loss, points | features differ by | trunk's arena, KiB | flash, KiB |
|---|---|---|---|---|---|"""
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Images as the network takes them, (N, 3, H, W), and their classes, (N,)."""

    x: Tensor
    y: NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Probed:
    """Features of the test images, (N, features), and whether each image's class was found, (N,)."""

    features: Array
    right: NDArray[np.bool_]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", type=int, default=1500, metavar="IMAGES")
    parser.add_argument("--test", type=int, default=3000, metavar="IMAGES")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    model = models.build(NETWORK, 10, "imagenet").eval()
    source = data.load("cifar10")
    rows = source.split(512, 0, 0)  # the server's images, as in a run
    public = _batch(source.x_train[rows.public])
    train = Labelled(
        _batch(source.x_train[rows.train[: chosen.train]]), source.y_train[rows.train[: chosen.train]]
    )
    test = Labelled(_batch(source.x_test[: chosen.test]), source.y_test[: chosen.test])
    trunk = cut.folded(cut.cut(model, [models.head_name(model)], public[:1])[0])
    ranges = calibrated(trunk, public)
    print(HEADER, flush=True)
    whole = None
    for form in FORMATS:
        found = _probed(stored_trunk(trunk, form, ranges), train, test)
        whole = whole or found
        memory = _memory(model, public[:1], form)
        print(
            _line(form, found, whole),
            f"{memory.trunk_bytes / 1024:.1f} | {memory.flash_bytes / 1024:.1f} |",
            flush=True,
        )
    store_frozen_(trunk, [], "int8")
    print(_line("int8, weights alone", _probed(trunk, train, test), whole or found), "- | - |")


def _line(name: str, found: Probed, whole: Probed) -> str:
    """Return a row's first cells. A loss is a mean over images of the difference between the two probes."""
    lost = whole.right.astype(float) - found.right
    error = lost.std(ddof=1) / len(lost) ** 0.5
    wrong = np.linalg.norm(found.features - whole.features) / np.linalg.norm(whole.features)
    return (
        f"| {name} | {found.right.mean():.2%} | {lost.mean() * 100:.2f} ± {error * 100:.2f} | {wrong:.4%} |"
    )


def _batch(images: NDArray[np.uint8]) -> Tensor:
    mean, std = models.normalisation(NETWORK)
    return to_batch(images, RESOLUTION, mean, std)


def _features(trunk: fx.GraphModule, x: Tensor) -> Array:
    with torch.inference_mode():
        found = torch.cat([trunk(one) for one in torch.split(x, AT_ONCE)])
    return found.flatten(1).double().numpy()


def _probed(trunk: fx.GraphModule, train: Labelled, test: Labelled) -> Probed:
    """Return the result of a ridge regression onto the classes, on a trunk's features."""
    seen, judged = _features(trunk, train.x), _features(trunk, test.x)
    mean, scale = seen.mean(0), seen.std(0) + 1e-9
    a = np.c_[(seen - mean) / scale, np.ones(len(seen))]
    b = np.c_[(judged - mean) / scale, np.ones(len(judged))]
    weights = np.linalg.solve(a.T @ a + RIDGE * len(a) * np.eye(a.shape[1]), a.T @ np.eye(10)[train.y])
    return Probed(judged, (b @ weights).argmax(1) == test.y)


def _memory(model: torch.nn.Module, image: Tensor, form: Format) -> DeviceMemory:
    model = copied(model)
    trained = tune_last_(model, 4)
    trunk, tail = cut.cut(model, {name.rpartition(".")[0] for name in trained}, image)
    training_mode_(tail)
    return device_memory(tail, image, torch.tensor([0]), trunk=cut.folded(trunk), storage=form)


if __name__ == "__main__":
    main()
