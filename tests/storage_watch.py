"""A second oracle for the meter: weak references to every storage that any operation creates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class StorageWatch(TorchDispatchMode):
    """Hold a weak reference to every storage made inside; `alive()` adds up those not yet freed.

    Storages that were there before, such as constants and weights, are known by being read before they are made.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refs: dict[int, tuple[StorageWeakRef, int]] = {}
        self.from_before: dict[int, torch.UntypedStorage] = {}  # held, so that no address comes twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in _storages([args, kwargs or {}]):
            known = self.refs.get(storage._cdata)
            if known is None or known[0].expired():
                self.from_before[storage._cdata] = storage
        out = func(*args, **(kwargs or {}))
        for storage in _storages(out):
            if storage._cdata not in self.from_before:
                self.refs[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return out

    def alive(self, model: nn.Module) -> int:
        weights = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
        return sum(size for key, (ref, size) in self.refs.items() if key not in weights and not ref.expired())


def _storages(values: Any) -> Iterator[torch.UntypedStorage]:
    return (leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
