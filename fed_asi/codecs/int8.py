"""Eight bits a number, with one scale a row."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import torch
from torch import Tensor

from fed_asi.codecs.base import Codec, Piece, Pieces, register
from fed_asi.errors import UpdateError

LEVELS = 127
MOST_SCALE = (
    torch.finfo(torch.float32).max / LEVELS * (1.0 - 2.0**-23)
)  # whose largest level is still a float32


@register
@dataclass(frozen=True, slots=True)
class Int8(Codec):
    """A byte a number and a float32 a row, off by at most half a scale, which is 1/127 of a row's largest number.

    A row is what makes one output: (C', ...) has C' rows, a vector is one row.
    """

    name: ClassVar[str] = "int8"

    def pieces(self, shape: tuple[int, ...]) -> dict[str, Piece]:
        """Return the levels, and the rows' scales."""
        return {"": Piece(torch.int8, shape), "scale": Piece(torch.float32, _rows(shape)[:1])}

    def encode(self, moved: Tensor) -> dict[str, Tensor]:
        """Return the levels, rounded to even, and the scales."""
        rows = moved.reshape(_rows(tuple(moved.shape))).to(torch.float64)
        largest = rows.abs().amax(1) if rows.numel() else rows.new_zeros(len(rows))
        scale = (largest / LEVELS).clamp(max=MOST_SCALE).to(torch.float32)
        wide = scale.to(torch.float64).unsqueeze(1)
        levels = torch.where(wide > 0.0, rows / torch.where(wide > 0.0, wide, 1.0), 0.0)
        return {"": levels.round().clamp(-LEVELS, LEVELS).to(torch.int8).reshape(moved.shape), "scale": scale}

    def restored(self, pieces: Pieces, shape: tuple[int, ...]) -> Tensor:
        """Return levels times scales. Raises UpdateError for a scale below 0."""
        scale = pieces["scale"].to(torch.float64)
        if bool((scale < 0.0).any()):
            raise UpdateError("a scale is below 0")
        rows = pieces[""].reshape(_rows(shape)).to(torch.float64)
        return (rows * scale.unsqueeze(1)).to(torch.float32).reshape(shape)


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many rows a tensor has, and how many numbers are in each."""
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, prod(shape))
