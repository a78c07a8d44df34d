"""Data sets in folders, laid out as their publishers do: ImageNet, CUB-200-2011, or your own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fed_asi.data.arrays import said
from fed_asi.data.dataset import Dataset, from_files
from fed_asi.errors import MissingDataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm"})


def class_folders(name: str, folder: Path, size: int) -> Dataset:
    """Return a data set laid out as train/CLASS/* and val/CLASS/* (or test/CLASS/*) under `folder`.

    Classes are numbered by their sorted names; hidden files and folders, such as macOS's ._0.png,
    are left out. Raises MissingDataError for any other layout.
    """
    test = next((folder / part for part in ("val", "test") if (folder / part).is_dir()), folder / "val")
    classes = sorted(path.name for path in _listed(folder / "train") if path.is_dir())
    surplus = sorted({path.name for path in _listed(test) if path.is_dir()} - set(classes))
    if surplus:
        raise MissingDataError(
            f"{name}: {test} has classes that the training images do not have, such as {surplus[0]}"
        )
    parts = [
        [(image, label) for label, kind in enumerate(classes) for image in _images(part / kind)]
        for part in (folder / "train", test)
    ]
    return from_files(name, folder, parts[0], parts[1], classes, size)


def cub200(name: str, folder: Path, size: int) -> Dataset:
    """Return CUB-200-2011 from its published files: images.txt, train_test_split.txt, classes.txt, images/."""
    root = folder / "CUB_200_2011" if (folder / "CUB_200_2011").is_dir() else folder
    images, labels = _table(name, root / "images.txt"), _table(name, root / "image_class_labels.txt")
    trains = _table(name, root / "train_test_split.txt")
    classes = list(_table(name, root / "classes.txt").values())
    try:
        rows = [(root / "images" / images[key], int(labels[key]) - 1, trains[key] == "1") for key in images]
    except (KeyError, ValueError) as error:
        raise MissingDataError(f"{name}: the lists in {root} do not belong together: {error}") from error
    missing = [path for path, _, _ in rows if not path.is_file()]
    if missing:
        raise MissingDataError(f"{name}: {len(missing)} images are missing, such as {missing[0]}")
    train, test = ([(path, label) for path, label, own in rows if own is part] for part in (True, False))
    return from_files(name, root, train, test, classes, size)


def _table(name: str, path: Path) -> dict[str, str]:
    """Return the lines "KEY VALUE" of a text file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MissingDataError(f"{name}: {path} cannot be read ({said(error)})") from error
    return {key: value for key, _, value in (line.partition(" ") for line in lines if line.strip())}


def _listed(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        return ()
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _images(folder: Path) -> Sequence[Path]:
    return [path for path in _listed(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
