"""Only the largest numbers of a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fed_asi.codecs.base import Codec, Piece, Pieces, register
from fed_asi.errors import UpdateError

MOST_NUMBERS = 2**31 - 1


@register
@dataclass(frozen=True, slots=True)
class TopK(Codec):
    """The largest share `share` of a tensor's numbers, at least one, with their places: 8 bytes each.

    Among equal numbers the first are sent. What is not sent is kept and added to the next update, unless error_feedback
    is off. Source: Stich et al. 2018 (arXiv 1809.07599), algorithm 1.
    """

    name: ClassVar[str] = "top-k"
    error_feedback: bool = True
    share: Annotated[float, Field(gt=0, le=1)] = 0.1

    def pieces(self, shape: tuple[int, ...]) -> dict[str, Piece]:
        """Return the numbers, and their places in the flattened tensor."""
        count = self._count(shape)
        return {"": Piece(torch.float32, (count,)), "index": Piece(torch.int32, (count,))}

    def encode(self, moved: Tensor) -> dict[str, Tensor]:
        """Return the largest numbers in the order of their places, which does not depend on the number of threads."""
        flat = moved.reshape(-1)
        order = flat.abs().sort(descending=True, stable=True).indices
        index = order[: self._count(tuple(moved.shape))].sort().values
        return {"": flat[index].clone(), "index": index.to(torch.int32)}

    def restored(self, pieces: Pieces, shape: tuple[int, ...]) -> Tensor:
        """Return the numbers at their places, and 0 elsewhere. Raises UpdateError for impossible places."""
        index, size = pieces["index"].to(torch.int64), prod(shape)
        if len(index) and not (
            int(index[0]) >= 0 and int(index[-1]) < size and bool((index.diff() > 0).all())
        ):
            raise UpdateError(f"its positions are not in ascending order within {size}")
        flat = torch.zeros(size, dtype=torch.float32)
        flat[index] = pieces[""]
        return flat.reshape(shape)

    def _count(self, shape: tuple[int, ...]) -> int:
        size = prod(shape)
        if size > MOST_NUMBERS:
            raise UpdateError(f"top-k: a tensor of {size} numbers, and places have 32 bits")
        return min(size, max(1, ceil(self.share * size - 1e-9)))
