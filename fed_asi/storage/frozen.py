"""Weights of the tail that a device only reads, as it stores them: in flash, converted to float32 where used.

The network is distributed in the storage format, so every weight starts as a number that the format can hold. A device
copies what it trains to RAM, in float32, and leaves the rest in flash. Weights that other devices have moved since, and
that this one keeps frozen, are rounded when they arrive.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import slices_of
from fed_asi.memory.stored import Format
from fed_asi.storage.float16 import float16_numbers
from fed_asi.storage.grid import rounded_rows, row_scales


@torch.no_grad()
def store_all_(tail: nn.Module, form: Format) -> list[str]:
    """Round all parameters of a tail to a format; return the names of those that changed. Statistics stay.

    int8: weights of two or more dimensions, with one scale a row; float16: every parameter.
    Raises UnsupportedLayerError, with the name, for weights that the format cannot hold.
    """
    changed = []
    for name, parameter in tail.named_parameters():
        stored = parameter if form == "float32" else _stored(name, parameter, form)
        if not torch.equal(stored, parameter):
            parameter.copy_(stored)
            changed.append(name)
    return changed


@torch.no_grad()
def store_frozen_(tail: nn.Module, form: Format, handed_out: Mapping[str, Tensor]) -> None:
    """Round to a format those parameters of a compressed tail that it does not train.

    Of a weight with some trained channels, the rest is rounded. handed_out: the parameters that any device trains, as
    `store_all_` left them; only those can have moved, and rows that did not move stay as they are.
    Raises UnsupportedLayerError as `store_all_` does.
    """
    if form == "float32":
        return
    parts, own = slices_of(tail), dict(tail.named_parameters())
    for name, first in handed_out.items():
        parameter, part = own[name], parts.get(name)
        before = first.to(parameter.device)
        if not parameter.requires_grad:
            parameter.copy_(_stored_again(name, parameter, before, form))
        elif part is not None:
            rest = part.rest(parameter)
            rest.load_(parameter, _stored_again(name, rest.of(parameter), rest.of(before), form))


def _stored_again(name: str, weight: Tensor, before: Tensor, form: Format) -> Tensor:
    """Return a weight as stored; rows that did not move keep the scale with which they were distributed."""
    stored = _stored(name, weight, form)
    if weight.dim() < 2 or form == "float16":  # rounding again changes nothing
        return stored
    same = (weight == before).flatten(1).all(1)
    return torch.where(same.view(-1, *(1 for _ in weight.shape[1:])), weight, stored)


def _stored(name: str, weight: Tensor, form: Format) -> Tensor:
    if form == "float16":
        return float16_numbers(name, weight)
    if weight.dim() < 2 or weight.numel() == 0:
        return weight
    if not bool(weight.isfinite().all()):
        raise UnsupportedLayerError(f"{name} cannot be stored as int8: it holds numbers that are not finite")
    scales = row_scales(weight, weight.new_zeros(len(weight)), 1.0)
    steps = rounded_rows(weight, scales)
    return (steps * scales.view(-1, *(1 for _ in weight.shape[1:]))).to(weight.dtype)
