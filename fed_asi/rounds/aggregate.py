"""Federated averaging tensor by tensor: every tensor over the devices that trained it.

Devices with different plans train different subsets of the same tensors, so each tensor has its own set of
contributors and its own weights. Sums run in float64 in the order of partition_id, so the same updates give
the same bits whatever order they came in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fed_asi.errors import UpdateError
from fed_asi.layers.slices import Slice

Weights = Mapping[str, Tensor]


# Sums of tensors * examples * factors stay finite in float64 within these; float32 ends far below the first.
LARGEST, MOST_EXAMPLES, MOST_FACTOR = 1e100, 2**63 - 1, 1e6


@dataclass(frozen=True, slots=True)
class Update:
    """What one device hands in: the tensors it trained, and how many examples stand behind them.

    slices: of the tensors of which it trained a part, where that belongs; the tensor is the part alone.
    """

    partition_id: int
    num_examples: int
    tensors: Weights
    factors: Mapping[str, float] = field(default_factory=dict)  # multiplies a tensor's weight; absent is 1
    slices: Mapping[str, Slice] = field(default_factory=dict)


def check_update(update: Update, reference: Weights, trained: Collection[str]) -> None:
    """Return nothing when an update may be averaged.

    reference: the global tensors by name. trained: the names this device said it trains.
    Raises UpdateError that names the first tensor missing, surplus, of another shape or type, or not finite, and for a
    weight that no sum can take.
    """
    if not 1 <= update.num_examples <= MOST_EXAMPLES:
        raise UpdateError(f"update of {max(min(update.num_examples, 2**63), -1)} examples")
    for name in sorted(set(trained) - set(update.tensors)):
        raise UpdateError(f"missing tensor {name}")
    for name in sorted(update.tensors):
        if name not in reference or name not in trained:
            raise UpdateError(f"surplus tensor {name}")
        _check_tensor(name, update.tensors[name], _part_of(name, update.slices.get(name), reference[name]))
    for name in sorted(set(update.slices) - set(update.tensors)):
        raise UpdateError(f"a part of {name} without its tensor")
    for name, factor in update.factors.items():
        if not 0.0 <= factor <= MOST_FACTOR:
            raise UpdateError(f"weight {factor} of {name} is no number from 0 to {MOST_FACTOR:g}")


def _part_of(name: str, part: Slice | None, reference: Tensor) -> Tensor:
    """Return the part of a global tensor. Raises UpdateError where a slice is of no places of it."""
    if part is None:
        return reference
    if part.dim >= reference.dim():
        raise UpdateError(f"a part of {name} along dimension {part.dim}, and it has {reference.dim()}")
    length, index = reference.shape[part.dim], part.index
    within = index.dim() == 1 and len(index) > 0 and int(index[0]) >= 0 and int(index[-1]) < length
    if not (within and bool((index[1:] > index[:-1]).all())):
        raise UpdateError(
            f"a part of {name} at places that are not ascending, each once, from 0 to {length - 1}"
        )
    return part.of(reference)


def _check_tensor(name: str, tensor: Tensor, reference: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.device != reference.device:
        raise UpdateError(f"{name} is no plain tensor on {reference.device}")
    if tensor.shape != reference.shape:
        raise UpdateError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(reference.shape)}")
    if tensor.dtype != reference.dtype:
        raise UpdateError(f"{name} is {tensor.dtype}, not {reference.dtype}")
    if not bool(torch.isfinite(tensor).all()):
        kind = "NaN" if bool(torch.isnan(tensor).any()) else "Inf"
        raise UpdateError(f"{name} holds {kind}")
    if tensor.dtype == torch.float64 and bool((tensor.abs() > LARGEST).any()):
        raise UpdateError(f"{name} holds a number beyond {LARGEST:g}")


def average(updates: Iterable[Update], reference: Weights) -> dict[str, Tensor]:
    """Return the new global tensors: sum_k w_k * tensor_k / sum_k w_k over the devices that trained each.

    w_k = num_examples * factor. A tensor that no device trained, or only with weight 0, stays as it is. Of a tensor of
    which some trained a part, this holds place by place.
    Exact up to one rounding to the reference's type after a float64 sum; independent of the updates' order.
    updates: checked by `check_update`. Raises UpdateError when a device appears twice.
    """
    ordered = sorted(updates, key=lambda update: update.partition_id)
    ids = [update.partition_id for update in ordered]
    if len(set(ids)) < len(ids):
        raise UpdateError(f"a device handed in two updates: {ids}")
    return {name: _average_one(name, ordered, tensor) for name, tensor in reference.items()}


def _average_one(name: str, ordered: list[Update], reference: Tensor) -> Tensor:
    if any(name in update.slices for update in ordered):
        return _average_by_place(name, ordered, reference)
    total = torch.zeros(reference.shape, dtype=torch.float64)
    weight = 0.0
    for update in ordered:
        tensor = update.tensors.get(name)
        share = update.num_examples * update.factors.get(name, 1.0)
        if tensor is None or share == 0.0:
            continue
        total += tensor.to(torch.float64) * share
        weight += share
    return (total / weight).to(reference.dtype) if weight > 0.0 else reference.clone()


def _average_by_place(name: str, ordered: list[Update], reference: Tensor) -> Tensor:
    total = torch.zeros(reference.shape, dtype=torch.float64)
    weight = torch.zeros(reference.shape, dtype=torch.float64)
    for update in ordered:
        tensor, part = update.tensors.get(name), update.slices.get(name)
        share = update.num_examples * update.factors.get(name, 1.0)
        if tensor is None or share == 0.0:
            continue
        weighted = tensor.to(torch.float64) * share
        if part is None:
            total += weighted
            weight += share
        else:
            part.add_(total, weighted, 1.0)
            part.add_(weight, torch.ones_like(weighted), share)
    return torch.where(weight > 0.0, (total / weight).to(reference.dtype), reference)
