"""From pixels to what a network reads: normalised float batches of one resolution."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from fed_asi.data.arrays import said
from fed_asi.errors import MissingDataError

UInt8Images = NDArray[np.uint8]


Rows = slice | NDArray[np.integer] | NDArray[np.bool_]


class Images(Protocol):
    """Images (N, H, W, 3) uint8, in memory or read from disk when rows are asked for."""

    def __len__(self) -> int:
        """Return N."""

    def __getitem__(self, rows: Rows, /) -> UInt8Images:
        """Return the images of a slice, of indices, or of a mask."""


class FileImages:
    """Image files, read when they are asked for; each is cut to its middle square and resized."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths = np.asarray([str(path) for path in paths], dtype=object)
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Rows, /) -> UInt8Images:
        found = [self._read(path) for path in self.paths[rows]]
        return np.stack(found) if found else np.empty((0, self.size, self.size, 3), np.uint8)

    def _read(self, path: str) -> UInt8Images:
        from PIL import Image, ImageOps

        try:
            with Image.open(path) as image:
                square = ImageOps.fit(image.convert("RGB"), (self.size, self.size), Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow's readers may raise anything
            raise MissingDataError(_unreadable(path, error)) from error
        return np.asarray(square, dtype=np.uint8)

    def check(self, rows: Rows = slice(None)) -> None:
        """Raise MissingDataError, naming the file, unless every file begins as an image does.

        Only the header with kind and size is read, about 0.1 ms an image.
        """
        from PIL import Image

        for path in self.paths[rows]:
            try:
                with Image.open(path):
                    pass
            except Exception as error:  # the same
                raise MissingDataError(_unreadable(path, error)) from error


def _unreadable(path: str, error: Exception) -> str:
    return f"{path} is not a readable image ({said(error)}); remove or replace it"


class SelectedImages:
    """A selection of rows from other images."""

    def __init__(self, images: Images, rows: NDArray[np.integer]) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Rows, /) -> UInt8Images:
        return self.images[self.rows[rows]]

    def check(self, rows: Rows = slice(None)) -> None:
        """Raise MissingDataError unless these images can be read, as far as a quick look can tell."""
        if isinstance(self.images, (FileImages, SelectedImages)):
            self.images.check(self.rows[rows])


def select(images: Images, rows: NDArray[np.integer]) -> Images:
    """Return rows of images; images on disk are still read only when they are asked for."""
    return images[rows] if isinstance(images, np.ndarray) else SelectedImages(images, rows)


def to_batch(
    images: UInt8Images, resolution: int, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Return a float32 batch (N, 3, resolution, resolution), normalised as (pixel / 255 - mean) / std.

    images: (N, H, W, 3) uint8. Images of another size are resized bilinearly, with antialiasing when they shrink; the
    batch is then channels last.
    """
    shape = (1, 3, 1, 1)
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div_(255)
    batch = batch.sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))
    if batch.shape[-2:] == (resolution, resolution):
        return batch.contiguous()
    # Normalised while it is small, and as pixels lie in memory: half the time. Resizing weights add up to 1.
    shrinks = max(batch.shape[-2:]) > resolution
    return F.interpolate(batch, (resolution, resolution), mode="bilinear", antialias=shrinks)


def images_fingerprint(images: Images) -> str:
    """Return a hash of the images: of pixels for those in memory, of file names and sizes for those on disk."""
    digest = hashlib.sha256()
    match images:
        case SelectedImages():
            digest.update(images_fingerprint(images.images).encode())
            digest.update(np.ascontiguousarray(images.rows, dtype=np.int64).data)
        case FileImages():
            for path in images.paths:
                digest.update(f"{path} {Path(path).stat().st_size} {images.size}\n".encode())
        case _:
            pixels = np.ascontiguousarray(images[:])
            digest.update(f"{pixels.shape}".encode())
            digest.update(pixels.data)
    return digest.hexdigest()
