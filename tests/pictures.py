"""Made-up images for the tests of data sets, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def image(path: Path, colour: tuple[int, int, int] = (10, 20, 30), size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def imagenet(folder: Path, classes: str = "abcd") -> Path:
    """Three training and two test images a class, each of its class's shade, under folder/imagenet."""
    for part, count in (("train", 3), ("val", 2)):
        for number, kind in enumerate(classes):
            for index in range(count):
                image(folder / "imagenet" / part / kind / f"{index}.png", (number * 10, 0, 0))
    return folder
