"""Data sets by name."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from fed_asi import seeds
from fed_asi.data import downloaded, folders
from fed_asi.data.dataset import Dataset, from_arrays
from fed_asi.errors import ConfigError, MissingDataError, nearest

SIZE = 224  # height and width that data sets of image files are read at, if nothing else is asked for


Load = Callable[[Path | None, int], Dataset]


_SOURCES: dict[str, Load] = {}


def register(name: str, load: Load) -> None:
    """Let `data.load` and fleet files name a data set; a name that is taken is from now on this one's.

    load: takes the folder of the data, or None, and the height and width in pixels at which image files are
        read, and returns the data set; it raises MissingDataError where there is none. NAME.npz in the folder
        is read instead of calling it.
    """
    _SOURCES[name] = load


def names() -> list[str]:
    """Return the names `load` knows; a folder with NAME.npz adds NAME to them."""
    return sorted(_SOURCES)


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
    if name not in _SOURCES:
        raise ConfigError(f"unknown data set {name!r}; {nearest(name, names())}")
    return _SOURCES[name](folder, size)


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


def _digits(_folder: Path | None, _size: int) -> Dataset:
    """Return scikit-learn's 1,797 digits as (32, 32, 3) images; which 360 are for testing never changes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    images = np.repeat(grey[..., None], 3, axis=3)
    order = seeds.rng(0, "digits").permutation(len(images))
    train, test = np.sort(order[360:]), np.sort(order[:360])
    labels = digits.target
    classes = [str(label) for label in digits.target_names]
    return from_arrays("digits", (images[train], labels[train]), (images[test], labels[test]), classes)


def _in_its_folder(name: str, read: Callable[[str, Path, int], Dataset]) -> Load:
    """Return what reads a data set from the folder of its name, or from the one that was named."""

    def found(folder: Path | None, size: int) -> Dataset:
        if folder is None:
            raise MissingDataError(
                f"{name} is not downloaded for you: name its folder with --data-dir, set FED_ASI_DATA_DIR to it, "
                f"or put {name}.npz there (x_train, y_train, x_test, y_test)"
            )
        inside = folder / name
        return read(name, inside if inside.is_dir() else folder, size)

    return found


register("digits", _digits)
register("cifar10", partial(downloaded.cifar, "cifar10"))
register("cifar100", partial(downloaded.cifar, "cifar100"))
register("flowers102", partial(downloaded.flowers102, "flowers102"))
register("pets", partial(downloaded.pets, "pets"))
register("imagenet", _in_its_folder("imagenet", folders.class_folders))
register("folder", _in_its_folder("folder", folders.class_folders))
register("cub200", _in_its_folder("cub200", folders.cub200))
