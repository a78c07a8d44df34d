"""Checks that arrays are images and labels, before anything is made of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_asi.errors import MissingDataError

MOST_CLASSES = 100_000  # a larger label is a mistake, and its classifier would fill the memory


def check_arrays(
    name: str, train: tuple[Any, Any], test: tuple[Any, Any], classes: Sequence[str], *, files: bool = False
) -> None:
    """Raise MissingDataError, naming everything that is wrong, unless the arrays form a data set.

    train, test: images (N, H, W, 3) uint8 and labels (N,), integers in 0..len(classes) - 1. The training part has at
    least one image. files: the images are read later, so that only their number is known.
    """
    problems = (
        [f"{len(classes)} classes; there must be 1 to {MOST_CLASSES:,}"] if not _fine(len(classes)) else []
    )
    for part, (x, y) in (("train", train), ("test", test)):
        wrong = [] if files else list(_images(f"x_{part}", x))
        wrong += _labels(f"y_{part}", y, None if wrong else len(x), len(classes))
        problems += wrong
    if not problems and len(train[1]) == 0:
        problems.append("x_train has no images")
    if problems:
        raise MissingDataError(f"{name}: {'; '.join(problems)}")


def class_names(name: str, arrays: Mapping[str, NDArray[Any]]) -> list[str]:
    """Return the class names of arrays: those in class_names, or else the labels from 0 to the largest.

    Raises MissingDataError where there are neither.
    """
    if "class_names" in arrays:
        named = arrays["class_names"]
        if named.ndim != 1 or not len(named):
            raise MissingDataError(
                f"{name}: class_names is {named.dtype} {named.shape}, expected text (classes,)"
            )
        return [str(label) for label in named]
    largest = -1
    for part in ("train", "test"):
        labels = arrays[f"y_{part}"]
        wrong = list(_labels(f"y_{part}", labels, None, MOST_CLASSES))
        if wrong:
            raise MissingDataError(f"{name}: {'; '.join(wrong)}")
        largest = max(largest, int(labels.max(initial=0)))
    return [str(label) for label in range(largest + 1)]


def said(error: BaseException) -> str:
    """Return the text of an error, on one line of a readable length."""
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _fine(classes: int) -> bool:
    return 1 <= classes <= MOST_CLASSES


def _images(name: str, x: Any) -> Iterator[str]:
    if not isinstance(x, np.ndarray):
        yield f"{name} is {type(x).__name__}, expected an array of uint8 (N, H, W, 3)"
    elif x.dtype != np.uint8 or x.ndim != 4 or x.shape[3] != 3 or 0 in x.shape[1:]:
        yield f"{name} is {x.dtype} {x.shape}, expected uint8 (N, H, W, 3)"


def _labels(name: str, y: Any, images: int | None, classes: int) -> Iterator[str]:
    """Yield what is wrong with labels. images: how many they belong to; None if unknown."""
    if not isinstance(y, np.ndarray) or not np.issubdtype(y.dtype, np.integer):
        yield f"{name} is {getattr(y, 'dtype', type(y).__name__)}, expected integers that count classes from 0"
    elif y.ndim != 1 or images not in (None, len(y)):
        yield f"{name} is {y.shape} for {'(N,)' if images is None else images} images, expected one label an image"
    elif len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        yield f"{name} has labels outside 0..{classes - 1}: from {y.min()} to {y.max()}"
