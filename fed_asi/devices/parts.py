"""The global tensors as a message carries them: of a tensor of which only some places have moved, these alone.

A device has every tensor from before the first round, so that what it is sent is whole again where it arrives: to the
bit, and whatever the devices' plans were.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from fed_asi.errors import RunError
from fed_asi.layers.slices import Slice

# The name of a tensor that says where another one belongs; no other's has spaces.
_PLACES = re.compile(r"(.+) places ([01])")


def sent(tensors: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what must be sent: parts, each behind its places (int32), and whole tensors.

    reference: the tensors from before the first round. A tensor that has not moved at all is sent whole: in the first
    round all are.
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
    """Return the whole tensors that `sent` was given. Raises RunError for parts that belong nowhere."""
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
    """Return the places that differ from before; None where that is nothing, or everything."""
    if tensor.dim() < 2:
        return None
    dim = 1 if tensor.shape[1] > 1 else 0
    other = (tensor != reference) | (tensor.signbit() != reference.signbit())  # -0.0 equals 0.0
    moved = other.transpose(0, dim).flatten(1).any(1)
    index = moved.nonzero().flatten()
    return None if len(index) in (0, len(moved)) else Slice(dim, index)
