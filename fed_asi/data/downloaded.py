"""Data sets that torchvision knows; they are downloaded if there is a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from fed_asi.data.dataset import Dataset, from_arrays, from_files
from fed_asi.errors import MissingDataError
from fed_asi.models.download import cache_dir, fetching, reachable

_CIFAR = "https://www.cs.toronto.edu/~kriz/"
_OXFORD = "https://thor.robots.ox.ac.uk/"


def cifar(name: str, folder: Path | None, _: int) -> Dataset:
    """Return CIFAR-10 or CIFAR-100 (32, 32)."""
    kind = {"cifar10": "CIFAR10", "cifar100": "CIFAR100"}[name]
    train, test = (_open(name, kind, folder, _CIFAR, train=part) for part in (True, False))
    arrays = [(np.asarray(part.data), np.asarray(part.targets)) for part in (train, test)]
    return from_arrays(name, arrays[0], arrays[1], tuple(train.classes))


def flowers102(name: str, folder: Path | None, size: int) -> Dataset:
    """Return Flowers-102: its train and validation parts (2,040 images) to train on, its test part."""
    parts = [_open(name, "Flowers102", folder, _OXFORD, split=part) for part in ("train", "val", "test")]
    listed = [list(zip(part._image_files, part._labels, strict=True)) for part in parts]
    root = Path(parts[0]._base_folder)
    classes = [str(label) for label in range(102)]
    return from_files(name, root, [*listed[0], *listed[1]], listed[2], classes, size)


def pets(name: str, folder: Path | None, size: int) -> Dataset:
    """Return the 37 breeds of Oxford-IIIT Pet."""
    train, test = (_open(name, "OxfordIIITPet", folder, _OXFORD, split=part) for part in ("trainval", "test"))
    listed = [list(zip(part._images, part._labels, strict=True)) for part in (train, test)]
    return from_files(name, Path(train._base_folder), listed[0], listed[1], list(train.classes), size)


def _open(name: str, kind: str, folder: Path | None, url: str, **options: Any) -> Any:
    """Return torchvision's data set from `folder` or the cache, downloading it if it is in neither."""
    from fed_asi.models.torchvision_shim import torchvision

    make: Callable[..., Any] = getattr(torchvision.datasets, kind)
    places = [place for place in (folder, cache_dir()) if place is not None]
    for place in places:
        try:
            return make(str(place), download=False, **options)
        except (RuntimeError, FileNotFoundError):
            continue
    if not reachable(url):
        raise missing(name)
    try:
        places[0].mkdir(parents=True, exist_ok=True)
        with fetching(f"downloading {name} from {urlsplit(url).hostname}"):
            return make(str(places[0]), download=True, **options)
    except (OSError, RuntimeError) as error:
        raise MissingDataError(f"{name} cannot be downloaded into {places[0]}: {error}") from error


def missing(name: str) -> MissingDataError:
    """Return the error for data that can be neither found nor downloaded: one line, three remedies."""
    return MissingDataError(
        f"no {name} here, and no network: name the folder that has it with --data-dir, set FED_ASI_DATA_DIR "
        f"to it (torchvision's files, or {name}.npz with x_train, y_train, x_test, y_test), or connect to a "
        "network so that it is downloaded"
    )
