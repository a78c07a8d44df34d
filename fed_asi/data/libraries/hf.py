"""Data sets of Hugging Face's datasets: "hf:uoft-cs/cifar10", "hf:flwrlabs/femnist?label=character&test=0.1".

After the ? comes what cannot be guessed: image, label, train and test (columns and splits), config and revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from fed_asi import libraries, seeds
from fed_asi.data.arrays import said
from fed_asi.data.dataset import Dataset, from_arrays
from fed_asi.data.images import UInt8Images
from fed_asi.data.sources import KIND, Load
from fed_asi.errors import ConfigError, MissingDataError, nearest
from fed_asi.models.download import hub_or_cache
from fed_asi.texts import visible

_TESTS = ("test", "validation", "valid", "val")  # names of the test split, in order of preference
_SEED = 0  # of the part held back where there is no test split


@dataclass(frozen=True, slots=True)
class Asked:
    """A data set's name with its options; None for those to be guessed.

    train, test: names of splits. test may also be a number between 0 and 1: the share of the training split held
    back.
    """

    name: str
    image: str | None = None
    label: str | None = None
    train: str = "train"
    test: str | None = None
    config: str | None = None
    revision: str | None = None

    @classmethod
    def of(cls, text: str) -> Asked:
        """Return the parsed text after "hf:". Raises ConfigError for unknown or wrong options."""
        if visible(text) != text:
            raise ConfigError(f"hf:{visible(text)} has characters that are not allowed in a name")
        name, _, rest = text.partition("?")
        given = dict(parse_qsl(rest, keep_blank_values=True))
        known = {one.name for one in fields(cls)} - {"name"}
        wrong = [f"unknown {key!r} in hf:{text}; {nearest(key, known)}" for key in given if key not in known]
        if not name or wrong:
            raise ConfigError(visible((wrong or ["hf: needs the name of a data set"])[0]))
        return cls(name, **given)

    @property
    def share(self) -> float | None:
        """The share of the training split that is held back for testing; None if `test` is not a number."""
        try:
            share = float(self.test or "")
        except ValueError:
            return None
        return share if 0 < share < 1 else None


@libraries.register("hf", KIND, package="datasets")
def find(text: str) -> Load:
    """Return a function that reads that data set."""
    return partial(_load, Asked.of(text))


def _load(asked: Asked, folder: Path | None, size: int) -> Dataset:
    """Return the data set, all of it in memory; images of several sizes become squares of `size` pixels.

    folder: a data set of that name inside it is read; otherwise downloads are kept in it.
    """
    train, test = _train_and_test(asked, _parts(asked, folder))
    image = _column(asked, train, "image", "Image")
    label = _column(asked, train, "label", "ClassLabel")
    labels, names = _labels(train.features[label], [list(part[label]) for part in (train, test)])
    pixels = _pixels([part[image] for part in (train, test)], size)
    found = from_arrays(asked.name, (pixels[0], labels[0]), (pixels[1], labels[1]), names)
    return replace(found, columns=dict(_others(train, {image, label})))


def _parts(asked: Asked, folder: Path | None) -> Mapping[str, Any]:
    """Return the splits by name, from a copy in `folder` (as save_to_disk or a hub lays it out) or from the hub."""
    import datasets

    here = None if folder is None else folder / asked.name
    try:
        if here is None or not here.is_dir():
            cache = None if folder is None else str(folder)
            with hub_or_cache():
                found = datasets.load_dataset(
                    asked.name, asked.config, revision=asked.revision, cache_dir=cache
                )
        elif any((here / file).is_file() for file in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(str(here))
        else:
            found = datasets.load_dataset(str(here), asked.config)
    except Exception as error:  # datasets, its hub and their transports raise many kinds of errors
        raise MissingDataError(
            f"hf:{visible(asked.name)} is not here and cannot be downloaded, or not read ({visible(said(error))}): "
            "connect to a network, or put its files into a folder of its name in the data folder (--data-dir)"
        ) from error
    return found if isinstance(found, Mapping) else {asked.train: found}


def _train_and_test(asked: Asked, parts: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the split to train on and the one to test on, which may be a share of the first."""
    if asked.train not in parts:
        raise MissingDataError(f"hf:{asked.name} has no split {asked.train!r}; {nearest(asked.train, parts)}")
    train = parts[asked.train]
    if asked.share is not None:
        held = max(1, round(asked.share * len(train)))
        order = seeds.rng(_SEED, "held back").permutation(len(train))
        return train.select(np.sort(order[held:])), train.select(np.sort(order[:held]))
    name = asked.test or next((one for one in _TESTS if one in parts), None)
    if name is None or name not in parts:
        raise MissingDataError(
            f"hf:{asked.name} has no split {name or 'test'!r} (there: {', '.join(parts)}): name one, "
            f"hf:{asked.name}?test=NAME, or hold a share back, hf:{asked.name}?test=0.1"
        )
    return train, parts[name]


def _column(asked: Asked, part: Any, use: str, kind: str) -> str:
    """Return the column of images or labels: the one asked for, the only one of its kind, or that of the usual name."""
    named: str | None = getattr(asked, use)
    found: list[str] = [name for name, feature in part.features.items() if type(feature).__name__ == kind]
    if named is None and len(found) == 1:
        return found[0]
    if named is None and not found and use in part.features:
        return use
    if named in part.features:
        return str(named)
    known = ", ".join(found or part.features)
    said_of = f"no column {named!r}" if named else f"{len(found)} columns of kind {kind}"
    raise MissingDataError(
        f"hf:{visible(asked.name)} has {visible(said_of)}; name one of {visible(known)}: "
        f"hf:{visible(asked.name)}?{use}=COLUMN"
    )


def _labels(feature: Any, parts: Sequence[list[Any]]) -> tuple[list[NDArray[np.int64]], list[str]]:
    """Return the labels of each part, counted from 0, and the class names; values without names are sorted."""
    names = getattr(feature, "names", None)
    if names is not None:
        return [np.array(part, dtype=np.int64) for part in parts], list(names)
    known = sorted({value for part in parts for value in part}, key=lambda value: (str(type(value)), value))
    code = {value: place for place, value in enumerate(known)}
    coded = [np.array([code[value] for value in part], dtype=np.int64) for part in parts]
    return coded, [str(value) for value in known]


def _pixels(parts: Sequence[Iterable[Any]], size: int) -> list[UInt8Images]:
    """Return the images of each part, (N, H, W, 3); squares of `size` pixels if they differ in size."""
    made: list[list[UInt8Images]] = []
    shape: tuple[int, ...] | None = None
    squares = False
    for part in parts:
        made.append([])
        for image in part:
            pixels = _rgb(image)
            shape = shape or pixels.shape
            if not squares and pixels.shape != shape:
                squares = True
                made = [[_square(one, size) for one in images] for images in made]
            made[-1].append(_square(pixels, size) if squares else pixels)
    return [np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8) for images in made]


def _rgb(image: Any) -> UInt8Images:
    """Return an image of Pillow, or an array of numpy, as (H, W, 3)."""
    pixels = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _square(pixels: UInt8Images, size: int) -> UInt8Images:
    """Return the middle square of an image, resized in the same way as image files."""
    from PIL import Image, ImageOps

    fitted = ImageOps.fit(Image.fromarray(pixels), (size, size), Image.Resampling.BILINEAR)
    return np.asarray(fitted, dtype=np.uint8)


def _others(part: Any, taken: set[str]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the other columns that hold text or whole numbers, (N,) each, by name."""
    for name, feature in part.features.items():
        if name not in taken and re.match("string|large_string|u?int", str(getattr(feature, "dtype", ""))):
            values = list(part[name])
            missing = any(value is None for value in values)
            yield (
                name,
                np.array(["" if value is None else str(value) for value in values] if missing else values),
            )
