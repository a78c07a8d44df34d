"""What a data set is: images, labels, class names, and a fingerprint of them all."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_asi import seeds
from fed_asi.data.arrays import check_arrays
from fed_asi.data.images import FileImages, Images, SelectedImages, UInt8Images
from fed_asi.errors import ConfigError, MissingDataError

Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of x_train by use; no row has two uses."""

    public: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images (N, H, W, 3) uint8, in memory or on disk, and labels (N,), for training and for testing.

    columns: other values of each training image, (N,) by name, such as its author; sharding can use them.
    Raises MissingDataError on construction where arrays have the wrong form or the training part is empty.
    """

    name: str
    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels
    class_names: tuple[str, ...]
    fingerprint: str
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        files = not isinstance(self.x_train, np.ndarray) or not isinstance(self.x_test, np.ndarray)
        train, test = (self.x_train, self.y_train), (self.x_test, self.y_test)
        check_arrays(self.name, train, test, self.class_names, files=files)
        for column, values in self.columns.items():
            if np.shape(values) != self.y_train.shape:
                raise MissingDataError(
                    f"{self.name}: column {column!r} is {np.shape(values)}, expected one value for each of "
                    f"{len(self.y_train)} training images"
                )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def split(self, public: int, validation: int, seed: int) -> Split:
        """Return rows of x_train: the last `validation` ones, `public` ones drawn from the others, and the rest.

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


def halves(dataset: Dataset, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Return two non-iid halves: every class is wholly in one of them, drawn by `seed`. Labels do not change.

    One is for pretraining, the other for fine-tuning, as in the published ImageNet set-up. Both keep all
    class names, so one network fits both. Raises ConfigError for fewer than two classes.
    """
    if dataset.num_classes < 2:
        raise ConfigError(f"{dataset.name} has {dataset.num_classes} class, which cannot be halved")
    order = seeds.rng(seed, "halves").permutation(dataset.num_classes)
    first = order[: (dataset.num_classes + 1) // 2]
    return _classes(dataset, first, f"half 0 of {seed}"), _classes(
        dataset, order[len(first) :], f"half 1 of {seed}"
    )


def _classes(dataset: Dataset, classes: NDArray[np.int64], which: str) -> Dataset:
    train, test = (np.flatnonzero(np.isin(y, classes)) for y in (dataset.y_train, dataset.y_test))
    return replace(
        dataset,
        x_train=SelectedImages(dataset.x_train, train),
        y_train=dataset.y_train[train],
        x_test=SelectedImages(dataset.x_test, test),
        y_test=dataset.y_test[test],
        fingerprint=hashlib.sha256(f"{dataset.fingerprint} {which}".encode()).hexdigest()[:16],
        columns={column: values[train] for column, values in dataset.columns.items()},
    )


def from_arrays(
    name: str,
    train: tuple[UInt8Images, NDArray[np.integer]],
    test: tuple[UInt8Images, NDArray[np.integer]],
    class_names: Sequence[str],
) -> Dataset:
    """Return a data set of your arrays, with a fingerprint of their contents.

    train, test: images (N, H, W, 3) uint8 and labels (N,) in 0..len(class_names) - 1.
    Raises MissingDataError that names each array of a wrong shape, type or range.
    """
    check_arrays(name, train, test, class_names)
    digest = hashlib.sha256()
    for x, y in (train, test):
        for array in (x, y.astype(np.int64)):
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    (x_train, y_train), (x_test, y_test) = train, test
    labels = y_train.astype(np.int64), y_test.astype(np.int64)
    return Dataset(name, x_train, labels[0], x_test, labels[1], tuple(class_names), digest.hexdigest()[:16])


def from_samples(
    name: str,
    train: Iterable[tuple[Any, int]],
    test: Iterable[tuple[Any, int]],
    class_names: Sequence[str],
) -> Dataset:
    """Return a data set made of samples that come one by one; each part is read once, in its order.

    train, test: (image, label) pairs. An image is (H, W, 3) uint8, or converts to it with numpy; all are of one size.
    Raises MissingDataError where a part is empty, or its images differ in shape.
    """
    parts = []
    for use, samples in (("training", train), ("test", test)):
        pairs = [(np.asarray(image), label) for image, label in samples]
        shapes = sorted({image.shape for image, _ in pairs})
        if len(shapes) > 1:
            raise MissingDataError(
                f"{name}: {use} images of several sizes, such as {shapes[0]} and {shapes[1]}"
            )
        images = np.stack([image for image, _ in pairs]) if pairs else np.zeros((0, 1, 1, 3), dtype=np.uint8)
        parts.append((images, np.array([label for _, label in pairs], dtype=np.int64)))
    return from_arrays(name, parts[0], parts[1], class_names)


Listed = Sequence[tuple[Path, int]]


def from_files(
    name: str, folder: Path, train: Listed, test: Listed, class_names: Sequence[str], size: int
) -> Dataset:
    """Return a data set of image files. Its fingerprint covers their names, sizes in bytes, and labels.

    train, test: (path, label) of each image; paths are relative to `folder`. size: height and width to resize to.
    Raises MissingDataError where either part is empty or names a missing file.
    """
    digest = hashlib.sha256(f"{size} {class_names}".encode())
    for part, listed in (("training", train), ("test", test)):
        if not listed:
            raise MissingDataError(f"{name}: no {part} images in {folder}")
        for path, label in listed:
            if not path.is_file():
                raise MissingDataError(
                    f"{name}: {path} is not a file, or a broken link; remove or replace it"
                )
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size} {label}\n".encode())
    images = [FileImages([path for path, _ in listed], size) for listed in (train, test)]
    labels = [np.array([label for _, label in listed], dtype=np.int64) for listed in (train, test)]
    return Dataset(
        name, images[0], labels[0], images[1], labels[1], tuple(class_names), digest.hexdigest()[:16]
    )
