"""The tensors inside a value, and the storages behind a tensor."""

from __future__ import annotations

from collections.abc import Iterable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import LayerState

PLAIN = frozenset({int, float, bool, str, type(None), torch.Size, torch.dtype, torch.device, FunctionType})


def is_data(value: Any) -> bool:
    """Return whether a value is an instance of a dataclass."""
    return hasattr(type(value), "__dataclass_fields__")


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in a value: itself, or those in containers and dataclasses.

    Modules and the states of compressed layers are passed over; what they hold is looked at by itself.
    """
    found: list[Tensor] = []
    _collect(value, found, 4)
    return found


def _collect(value: Any, found: list[Tensor], depth: int) -> None:
    kind = type(value)
    if kind in PLAIN:  # most attributes of modules; this is the meter's innermost loop
        return
    if isinstance(value, Tensor):
        found.append(value)
    elif depth == 0 or isinstance(value, (LayerState, type)):
        return
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            if type(item) not in PLAIN:
                _collect(item, found, depth - 1)
    elif isinstance(value, dict):
        for item in value.values():
            if type(item) not in PLAIN:
                _collect(item, found, depth - 1)
    elif hasattr(kind, "__dataclass_fields__"):
        for name in kind.__dataclass_fields__:
            _collect(getattr(value, name, None), found, depth - 1)


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages behind these tensors, each counted once."""
    found = {storage._cdata: storage.nbytes() for tensor in tensors for storage in storages_of(tensor)}
    return sum(found.values())


def storages_of(tensor: Tensor) -> list[torch.UntypedStorage]:
    """Return the storages behind a tensor: one, or those of a sparse tensor's parts.

    Raises UnsupportedLayerError for layouts that hide theirs.
    """
    if tensor.layout is torch.strided:
        return [tensor.untyped_storage()]
    if tensor.layout is torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
    elif tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        raise UnsupportedLayerError(f"a saved tensor of layout {tensor.layout} has no measurable storage")
    return [part.untyped_storage() for part in parts]
