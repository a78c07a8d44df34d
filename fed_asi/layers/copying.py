"""Deep copies of networks, including those whose weights are computed by hooks, which torch refuses to copy."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def copied(model: _Module) -> _Module:
    """Return a deep copy of the model. A computed weight (pruning, old weight_norm) is copied by its current value."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in module.__dict__.values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(model, memo)
