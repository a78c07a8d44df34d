"""Data sets by name."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fed_asi import seeds
from fed_asi.data import downloaded, folders
from fed_asi.data.dataset import Dataset, from_arrays
from fed_asi.errors import ConfigError, MissingDataError, nearest

SIZE = 224  # height and width that data sets of image files are read at, if nothing else is asked for


def names() -> list[str]:
    """Return the names `load` knows; a folder with NAME.npz adds NAME to them."""
    return sorted([*_SOURCES, *_FOLDERS])


def load(name: str, folder: Path | None = None, size: int = SIZE) -> Dataset:
    """Return the data set `name`.

    folder: where its files are, else FED_ASI_DATA_DIR. A file NAME.npz there is read before anything else.
    size: height and width in pixels that data sets of image files are read at.
    Raises ConfigError for an unknown name, MissingDataError, within seconds, where the data cannot be had.
    """
    if folder is None and os.environ.get("FED_ASI_DATA_DIR"):
        folder = Path(os.environ["FED_ASI_DATA_DIR"])
    if folder is not None and (folder / f"{name}.npz").is_file():
        return from_npz(name, folder / f"{name}.npz")
    if name in _SOURCES:
        return _SOURCES[name](name, folder, size)
    if name not in _FOLDERS:
        raise ConfigError(f"unknown data set {name!r}; {nearest(name, names())}")
    if folder is None:
        raise MissingDataError(
            f"{name} is not downloaded for you: name its folder with --data-dir, set FED_ASI_DATA_DIR to it, "
            f"or put {name}.npz there (x_train, y_train, x_test, y_test)"
        )
    inside = folder / name
    return _FOLDERS[name](name, inside if inside.is_dir() else folder, size)


def from_npz(name: str, path: Path) -> Dataset:
    """Return the data set in an .npz of x_train, y_train, x_test, y_test and, if there, class_names."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x_train, y_train = arrays["x_train"], arrays["y_train"]
            x_test, y_test = arrays["x_test"], arrays["y_test"]
            classes = [str(label) for label in arrays["class_names"]] if "class_names" in arrays else []
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise MissingDataError(f"{path} is not a data set: {error}") from error
    if not classes:
        classes = [str(label) for label in range(int(max(y_train.max(), y_test.max(initial=0))) + 1)]
    return from_arrays(name, (x_train, y_train), (x_test, y_test), classes)


def _digits(name: str, _folder: Path | None, _size: int) -> Dataset:
    """Return scikit-learn's 1,797 digits as (32, 32, 3) images; which 360 are for testing never changes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    images = np.repeat(grey[..., None], 3, axis=3)
    order = seeds.rng(0, "digits").permutation(len(images))
    train, test = np.sort(order[360:]), np.sort(order[:360])
    labels = digits.target
    classes = [str(label) for label in digits.target_names]
    return from_arrays(name, (images[train], labels[train]), (images[test], labels[test]), classes)


_SOURCES: dict[str, Callable[[str, Path | None, int], Dataset]] = {
    "digits": _digits,
    "cifar10": downloaded.cifar,
    "cifar100": downloaded.cifar,
    "flowers102": downloaded.flowers102,
    "pets": downloaded.pets,
}
_FOLDERS: dict[str, Callable[[str, Path, int], Dataset]] = {
    "imagenet": folders.class_folders,
    "folder": folders.class_folders,
    "cub200": folders.cub200,
}
