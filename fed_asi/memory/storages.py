"""The tensors inside a value, and the storages behind a tensor."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import LayerState
from fed_asi.torch_private import sparse_parts, storage_id

PLAIN = frozenset({int, float, bool, str, bytes, type(None), torch.Size, torch.dtype, torch.device})
DEPTH = 8  # levels of nesting; nothing deeper is an activation


def is_plain(value: Any) -> bool:
    """Return whether a value can hold no tensor: a number, a string, or a tuple of these, such as a kernel size."""
    return type(value) in PLAIN or (
        type(value) is tuple and value != () and all(type(one) in PLAIN for one in value)
    )


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in a value: itself, or those nested in containers, objects and closures.

    Modules and the states of compressed layers are skipped; their tensors are collected separately.
    """
    found: list[Tensor] = []
    _collect(value, found, DEPTH, set())
    return found


def _collect(value: Any, found: list[Tensor], depth: int, seen: set[int]) -> None:
    if type(value) in PLAIN:  # as are most attributes of modules; this is the meter's innermost loop
        return
    if isinstance(value, Tensor):
        found.append(value)
    elif depth > 0 and not isinstance(value, _PASSED_OVER) and id(value) not in seen:
        seen.add(id(value))
        for inner in _inside(value):
            _collect(inner, found, depth - 1, seen)


_PASSED_OVER = (LayerState, nn.Module, type, ModuleType)


def _inside(value: Any) -> Iterator[Any]:
    """Yield the values that a container, an object or a closure holds."""
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from value
    elif isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, FunctionType):
        yield from _cells(value)
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    else:
        yield from getattr(value, "__dict__", {}).values()
        names = (name for cls in type(value).__mro__ for name in _slots(cls))
        yield from (getattr(value, name, None) for name in names)


def _slots(cls: type) -> tuple[str, ...]:
    found = cls.__dict__.get("__slots__", ())
    return (found,) if isinstance(found, str) else tuple(found)


def _cells(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            yield cell.cell_contents


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the storages behind these tensors, each storage counted once."""
    found = {storage_id(storage): storage.nbytes() for tensor in tensors for storage in storages_of(tensor)}
    return sum(found.values())


def storages_of(tensor: Tensor) -> list[torch.UntypedStorage]:
    """Return the storages behind a tensor: one, or several for a sparse tensor.

    Raises UnsupportedLayerError for layouts that hide their storages.
    """
    if tensor.layout is torch.strided:
        return [tensor.untyped_storage()]
    if tensor.layout is torch.sparse_coo:
        parts = sparse_parts(tensor)
    elif tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        raise UnsupportedLayerError(f"a saved tensor of layout {tensor.layout} has no measurable storage")
    return [part.untyped_storage() for part in parts]
