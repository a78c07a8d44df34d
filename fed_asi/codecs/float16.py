"""Half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fed_asi.codecs.base import Codec, Piece, Pieces, register

MOST = torch.finfo(torch.float16).max


@register
@dataclass(frozen=True, slots=True)
class Float16(Codec):
    """Two bytes a number, with an error of at most 2^-11 of it or 2^-25; values beyond 65504 are clipped to it."""

    name: ClassVar[str] = "float16"

    def pieces(self, shape: tuple[int, ...]) -> dict[str, Piece]:
        """Return the one array."""
        return {"": Piece(torch.float16, shape)}

    def encode(self, moved: Tensor) -> dict[str, Tensor]:
        """Return the numbers rounded."""
        return {"": moved.clamp(-MOST, MOST).to(torch.float16)}

    def restored(self, pieces: Pieces, shape: tuple[int, ...]) -> Tensor:
        """Return the numbers in float32."""
        return pieces[""].to(torch.float32)
