"""The global tensors as a message carries them: of a tensor that changed in some places only, just those places.

Every device has the tensors from before the first round, so it can restore the whole tensors, to the bit, whatever the
devices' plans were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fed_asi.errors import RunError
from fed_asi.layers.slices import Slice

# The name of a tensor with the places of another one; no other name has spaces.
_PLACES = re.compile(r"(.+) places ([01])")


def sent(tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what must be sent: parts, each behind its places (int32), and whole tensors.

    reference: the tensors from before the first round. A tensor that has not changed at all is sent whole, as all are
    in the first round.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        part = _moved(tensor, reference[name])
        if part is None:
            found[name] = tensor
        else:
            found[f"{name} places {part.dim}"] = part.index.to(torch.int32)
            found[name] = part.of(tensor)
    return found


def received(found: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the whole tensors from which `sent` made a message. Raises RunError for parts that do not fit."""
    places = {match[1]: (int(match[2]), name) for name in found if (match := _PLACES.fullmatch(name))}
    whole = {}
    for name, tensor in found.items():
        if _PLACES.fullmatch(name):
            continue
        if name not in places:
            whole[name] = tensor
            continue
        dim, key = places[name]
        try:
            whole[name] = reference[name].clone()
            Slice(dim, found[key].long()).load_(whole[name], tensor)
        except (KeyError, RuntimeError, IndexError) as error:
            raise RunError(f"what the server sent of {name} is not a part of it: {error}") from None
    return whole


def _moved(tensor: Tensor, reference: Tensor) -> Slice | None:
    """Return the places that differ from before; None if none do, or all."""
    if tensor.dim() < 2:
        return None
    dim = 1 if tensor.shape[1] > 1 else 0
    if tensor.numel() and bool((_middle(tensor, dim) != _middle(reference, dim)).all()):
        return None  # as after most rounds: every place has moved
    other = (tensor != reference) | (tensor.signbit() != reference.signbit())  # -0.0 equals 0.0
    moved = other.transpose(0, dim).flatten(1).any(1)
    index = moved.nonzero().flatten()
    return None if len(index) in (0, len(moved)) else Slice(dim, index)


def _middle(tensor: Tensor, dim: int) -> Tensor:
    """Return one number of each place along a dimension: the one in the middle of the others."""
    middle = [size // 2 for size in tensor.shape]
    return tensor[tuple(slice(None) if axis == dim else place for axis, place in enumerate(middle))]
