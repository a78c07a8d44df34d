"""What features are used for: the training images at the model's resolution and at others, and the test images."""

from __future__ import annotations

TRAIN, TEST = "train", "test"


def train_at(pixels: int) -> str:
    """Return the use of training images at another resolution than the model's."""
    return f"{TRAIN} at {pixels}"


def split_of(use: str) -> str:
    """Return which images of a data set a use is of: TRAIN or TEST."""
    return use.partition(" ")[0]


def images_of(use: str) -> str:
    """Return what a use's images are called in texts, such as "train images at 96 x 96"."""
    kind, _, pixels = use.partition(" at ")
    return f"{kind} images at {pixels} x {pixels}" if pixels else f"{kind} images"
