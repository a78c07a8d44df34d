"""Data sets by name: real images as uint8, labels, and a fingerprint of both."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fed_asi import seeds
from fed_asi.data.images import UInt8Images
from fed_asi.errors import ConfigError, MissingDataError, nearest

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of x_train by use; no row has two uses."""

    public: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images (N, H, W, 3) uint8 and labels (N,) for training and for testing."""

    name: str
    x_train: UInt8Images
    y_train: Labels
    x_test: UInt8Images
    y_test: Labels
    class_names: tuple[str, ...]
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def split(self, public: int, validation: int, seed: int) -> Split:
        """Return rows of x_train: the last `validation` ones, `public` drawn from the others, and the rest.

        Raises ConfigError where nothing is left to train on.
        """
        samples = len(self.y_train)
        if min(public, validation) < 0 or public + validation >= samples:
            raise ConfigError(
                f"public={public} and validation={validation} leave nothing of {samples} training samples"
            )
        rest = samples - validation
        drawn = np.zeros(rest, dtype=bool)
        drawn[seeds.rng(seed, "public").choice(rest, public, replace=False)] = True
        return Split(np.flatnonzero(drawn), np.flatnonzero(~drawn), np.arange(rest, samples))


def names() -> list[str]:
    """Return the names `load` knows."""
    return sorted(_SOURCES)


def load(name: str, folder: Path | None = None) -> Dataset:
    """Return the data set `name`.

    folder: where its files are, else FED_ASI_DATA_DIR.
    Raises ConfigError for an unknown name, MissingDataError where the files are not there.
    """
    if name not in _SOURCES:
        raise ConfigError(f"unknown data set {name!r}; {nearest(name, _SOURCES)}")
    if folder is None and os.environ.get("FED_ASI_DATA_DIR"):
        folder = Path(os.environ["FED_ASI_DATA_DIR"])
    return _SOURCES[name](folder)


def from_arrays(
    name: str,
    train: tuple[UInt8Images, NDArray[np.integer]],
    test: tuple[UInt8Images, NDArray[np.integer]],
    class_names: tuple[str, ...],
) -> Dataset:
    """Return a data set of one's own arrays, its fingerprint taken from their contents.

    train, test: images (N, H, W, 3) uint8 and labels (N,) in 0..len(class_names) - 1.
    Raises MissingDataError that names the array of a wrong shape, type or range.
    """
    digest = hashlib.sha256()
    for part, (x, y) in (("train", train), ("test", test)):
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3:
            raise MissingDataError(f"{name}: x_{part} is {x.dtype} {x.shape}, expected uint8 (N, H, W, 3)")
        if y.shape != x.shape[:1]:
            raise MissingDataError(f"{name}: y_{part} is {y.shape} for {len(x)} images")
        if len(y) and not 0 <= y.min() <= y.max() < len(class_names):
            raise MissingDataError(f"{name}: y_{part} has labels outside 0..{len(class_names) - 1}")
        for array in (x, y.astype(np.int64)):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    (x_train, y_train), (x_test, y_test) = train, test
    labels = y_train.astype(np.int64), y_test.astype(np.int64)
    return Dataset(name, x_train, labels[0], x_test, labels[1], class_names, digest.hexdigest()[:16])


def _digits(_: Path | None) -> Dataset:
    """Return scikit-learn's 1,797 digits as (32, 32, 3) images; which 360 are for testing never changes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    images = np.repeat(grey[..., None], 3, axis=3)
    order = seeds.rng(0, "digits").permutation(len(images))
    train, test = np.sort(order[360:]), np.sort(order[:360])
    labels = digits.target
    classes = tuple(str(label) for label in digits.target_names)
    return from_arrays("digits", (images[train], labels[train]), (images[test], labels[test]), classes)


def _cifar10(folder: Path | None) -> Dataset:
    if folder is not None and (folder / "cifar10.npz").is_file():
        return from_npz("cifar10", folder / "cifar10.npz")
    raise MissingDataError(
        "no CIFAR-10: put cifar10.npz into a folder named by --data-dir or FED_ASI_DATA_DIR, "
        "or run once with a network so that torchvision downloads it"
    )


def from_npz(name: str, path: Path) -> Dataset:
    """Return the data set in an .npz of x_train, y_train, x_test, y_test and, if there, class_names."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x_train, y_train = arrays["x_train"], arrays["y_train"]
            x_test, y_test = arrays["x_test"], arrays["y_test"]
            classes = [str(label) for label in arrays["class_names"]] if "class_names" in arrays else []
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise MissingDataError(f"{path} is not a data set: {error}") from error
    if not classes:
        classes = [str(label) for label in range(int(y_train.max()) + 1)]
    return from_arrays(name, (x_train, y_train), (x_test, y_test), tuple(classes))


_SOURCES: dict[str, Callable[[Path | None], Dataset]] = {"digits": _digits, "cifar10": _cifar10}
