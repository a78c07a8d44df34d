"""What a device sends, and which updates are fit for a strategy.

Devices with different plans train different subsets of the same tensors, or parts of them, so each tensor has its own
set of contributors and its own weights.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from fed_asi.errors import UpdateError

Weights = Mapping[str, Tensor]


# Within these, sums of tensors * examples * factors stay finite in float64. The first is far beyond float32.
LARGEST, MOST_EXAMPLES, MOST_FACTOR = 1e100, 2**63 - 1, 1e6


class Slice(Protocol):
    """Some places along one dimension, 0 or 1, of a tensor. index: (k,), int64, ascending."""

    @property
    def dim(self) -> int:
        """The dimension."""

    @property
    def index(self) -> Tensor:
        """The places."""


@dataclass(frozen=True, slots=True)
class Update:
    """What one device sends: the tensors it trained, and how many examples they were trained on.

    steps: taken by the device. extra: tensors of its strategy. slices: for tensors trained in part, which part; the
    tensor is then that part alone.
    """

    partition_id: int
    num_examples: int
    tensors: Weights
    factors: Mapping[str, float] = field(default_factory=dict)  # multiplies a tensor's weight; 1 if absent
    steps: int = 0
    extra: Weights = field(default_factory=dict)
    slices: Mapping[str, Slice] = field(default_factory=dict)

    def share(self, name: str) -> float:
        """Return the weight of one of its tensors."""
        return self.num_examples * self.factors.get(name, 1.0)


def check_update(update: Update, reference: Weights, trained: Collection[str]) -> None:
    """Raise UpdateError unless an update may be averaged.

    reference: the global tensors by name. trained: the names that the device claims to have trained.
    The error names the first tensor that is missing, surplus, of another shape or type, or not finite; a part that does
    not fit; or a weight that is too large for a sum.
    """
    if not 1 <= update.num_examples <= MOST_EXAMPLES:
        raise UpdateError(f"update of {max(min(update.num_examples, 2**63), -1)} examples")
    for name in sorted(set(trained) - set(update.tensors)):
        raise UpdateError(f"missing tensor {name}")
    for name in sorted(update.tensors):
        if name not in reference or name not in trained:
            raise UpdateError(f"surplus tensor {name}")
        check_tensor(name, update.tensors[name], part_of(name, update.slices.get(name), reference[name]))
    for name in sorted(set(update.slices) - set(update.tensors)):
        raise UpdateError(f"a part of {name} without its tensor")
    for name, factor in update.factors.items():
        if not 0.0 <= factor <= MOST_FACTOR:
            raise UpdateError(f"weight {factor} of {name} is not a number from 0 to {MOST_FACTOR:g}")


def part_of(name: str, part: Slice | None, reference: Tensor) -> Tensor:
    """Return the part of a global tensor. Raises UpdateError where the slice does not fit it."""
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
    return reference.index_select(part.dim, index)


def check_tensor(name: str, tensor: Tensor, reference: Tensor) -> None:
    """Raise UpdateError, with its name, unless a tensor is finite and has the form of the reference."""
    if tensor.layout is not torch.strided or tensor.device != reference.device:
        raise UpdateError(f"{name} is not a plain tensor on {reference.device}")
    if tensor.shape != reference.shape:
        raise UpdateError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(reference.shape)}")
    if tensor.dtype != reference.dtype:
        raise UpdateError(f"{name} is {tensor.dtype}, not {reference.dtype}")
    if not _finite(tensor):
        kind = "NaN" if bool(torch.isnan(tensor).any()) else "Inf"
        raise UpdateError(f"{name} holds {kind}")
    if tensor.dtype == torch.float64 and bool((tensor.abs() > LARGEST).any()):
        raise UpdateError(f"{name} holds a number beyond {LARGEST:g}")


def _finite(tensor: Tensor) -> bool:
    """Return whether all of a tensor's numbers are finite: their sum tells, unless it overflows, much faster."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
