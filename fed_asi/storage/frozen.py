"""Frozen weights of the trained part as a device stores them: in flash, restored to float32 where they are used."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from fed_asi.errors import UnsupportedLayerError
from fed_asi.memory.stored import Format
from fed_asi.storage.float16 import float16_numbers
from fed_asi.storage.grid import rounded_rows, row_scales


@torch.no_grad()
def store_frozen_(tail: nn.Module, trained: Collection[str], form: Format) -> list[str]:
    """Make the weights of a tail that no device trains what a format holds; return the names of those changed.

    trained: names of the layers or parameters that some device trains; they stay, and so do statistics of batch
    norms. int8: weights of two or more dimensions, a scale a row; float16: every frozen parameter.
    Raises UnsupportedLayerError, with the name, for weights that the format cannot hold.
    """
    changed = []
    for name, parameter in tail.named_parameters():
        if form != "float32" and not any(name == one or name.startswith(f"{one}.") for one in trained):
            stored = _stored(name, parameter, form)
            if not torch.equal(stored, parameter):
                parameter.copy_(stored)
                changed.append(name)
    return changed


def _stored(name: str, weight: Tensor, form: Format) -> Tensor:
    if form == "float16":
        return float16_numbers(name, weight)
    if weight.dim() < 2:
        return weight
    if not bool(weight.isfinite().all()):
        raise UnsupportedLayerError(f"{name} cannot be stored as int8: it holds numbers that are not finite")
    scales = row_scales(weight, torch.zeros(len(weight)), 1.0)
    steps = rounded_rows(weight, scales)
    return (steps * scales.view(-1, *(1 for _ in weight.shape[1:]))).to(weight.dtype)
