"""Data sets by name."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_asi import libraries, own_code, seeds
from fed_asi.data import downloaded, folders
from fed_asi.data.arrays import class_names, said
from fed_asi.data.dataset import Dataset, from_arrays
from fed_asi.errors import ConfigError, FedAsiError, MissingDataError, nearest
from fed_asi.units import shown

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
SIZE = 224  # height and width that data sets of image files are read at, if nothing else is asked for


Load = Callable[[Path | None, int], Dataset]
KIND = "data set"
FORM = "def load(folder, size) -> fed_asi.data.Dataset"


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
    """Return the data set `name`, or the one in an .npz whose path `name` is.

    folder: where its files are, else FED_ASI_DATA_DIR. A file NAME.npz there is read before anything else.
    size: height and width in pixels that data sets of image files are read at.
    Raises ConfigError for an unknown name, MissingDataError, within seconds, where the data cannot be had.
    """
    folder = folder or folder_of_environment()
    found = npz_of(name, folder)
    if found is not None:
        return from_npz(name, found)
    if is_path(name):
        return from_npz(Path(name).stem, Path(name))
    return _made(name, find(name), folder, size)


def find(name: str) -> Load:
    """Return what reads the data set of that name. Raises ConfigError, with the nearest names, for an unknown one."""
    if name in _SOURCES:
        return _SOURCES[name]
    if libraries.is_library(name):
        of_library: Load = libraries.find(KIND, name)
        return of_library
    if not own_code.is_own(name):
        raise ConfigError(f"unknown data set {shown(name)}; {nearest(name, names())}")
    found: Load = own_code.load(name)
    own_code.check_call(name, found, FORM, None, SIZE)
    return found


def folder_of_environment() -> Path | None:
    """Return the folder that FED_ASI_DATA_DIR names."""
    named = os.environ.get("FED_ASI_DATA_DIR")
    return Path(named) if named else None


def is_path(name: str) -> bool:
    """Return whether a data set's name is the path of an .npz."""
    return name.lower().endswith(".npz")


def npz_of(name: str, folder: Path | None = None) -> Path | None:
    """Return the file NAME.npz of the folder, else of FED_ASI_DATA_DIR; None where there is none."""
    folder = folder or folder_of_environment()
    path = None if folder is None else folder / f"{name}.npz"
    return path if path is not None and is_file(path) else None


def is_file(path: Path) -> bool:
    """Return whether there is a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _made(name: str, load: Load, folder: Path | None, size: int) -> Dataset:
    """Return what a data set's function returns; whatever else it does is one line that names it."""
    called = own_code.shown_name(name)
    try:
        found = load(folder, size)
    except FedAsiError:
        raise
    except Exception as error:  # torchvision's readers, or somebody's own, may raise anything
        raise MissingDataError(
            f"data set {called!r} cannot be read: {said(error)}{own_code.place_of(error)}"
        ) from error
    if not isinstance(found, Dataset):
        raise ConfigError(f"data set {called!r}: its function returned {type(found).__name__}, not a Dataset")
    return found


def from_npz(name: str, path: Path) -> Dataset:
    """Return the data set in an .npz of x_train, y_train, x_test, y_test and, if there, class_names.

    Raises MissingDataError that names the file where it is none, and what of it is wrong.
    """
    if not is_file(path):
        raise MissingDataError(f"no file {shown(str(path))}; data.source is the path of an .npz, or a name")
    found = _arrays(path)
    parts = [(found[f"x_{part}"], found[f"y_{part}"]) for part in ("train", "test")]
    return from_arrays(name, parts[0], parts[1], class_names(name, found))


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz by name; whatever numpy says of a damaged one is one line."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {Path(one).stem for one in archive.namelist()}
        missing = [one for one in _ARRAYS if one not in inside]
        if not missing:
            with np.load(path, allow_pickle=False) as arrays:
                return {one: arrays[one] for one in (*_ARRAYS, "class_names") if one in arrays}
    except zipfile.BadZipFile:
        raise MissingDataError(
            f"{path} is not a data set: no .npz, or a damaged one; np.savez writes them, np.save an .npy"
        ) from None
    except Exception as error:  # a damaged archive makes numpy and zipfile raise many things
        raise MissingDataError(f"{path} is not a data set: {said(error)}") from error
    raise MissingDataError(f"{path} is not a data set: it has no {' and no '.join(missing)}")


def _digits(_folder: Path | None, _size: int) -> Dataset:
    """Return scikit-learn's 1,797 digits as (32, 32, 3) images; which 360 are for testing never changes."""
    pixels, labels = _digits_of_sklearn()
    grey = np.round(pixels * (255 / 16)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    images = np.repeat(grey[..., None], 3, axis=3)
    order = seeds.rng(0, "digits").permutation(len(images))
    train, test = np.sort(order[360:]), np.sort(order[:360])
    classes = [str(digit) for digit in range(10)]
    return from_arrays("digits", (images[train], labels[train]), (images[test], labels[test]), classes)


def _digits_of_sklearn() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return scikit-learn's digits as (1797, 8, 8) from 0 to 16, and their labels.

    Its file is read here where it lies as in every release so far: the import of scikit-learn takes a second.
    """
    package = find_spec("sklearn")
    path = Path(str(package and package.origin)).parent / "datasets" / "data" / "digits.csv.gz"
    if is_file(path):
        rows = np.loadtxt(path, delimiter=",")
        return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    digits = load_digits()
    return digits.images, digits.target


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
