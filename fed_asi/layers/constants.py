"""A cache of values derived from a layer's frozen tensors, from step to step, for simulated steps.

A real device has such values, for example a weight with its batch norm folded in, in flash. Without the cache every
simulated step would compute them again, which for one image takes as many torch calls as its own arithmetic. What
follows from a trained tensor is made in every forward pass and used again in its backward pass. These values are not
activations, so no meter counts them. A step traced for a device's memory does not use the cache, and copies of a
network start without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor

from fed_asi.torch_private import changes_of

_Made = TypeVar("_Made")
Parts = tuple[Tensor | None, ...]


class Constants:
    """Cached values by name, each valid while the tensors it was made from are the same and unmodified."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[Parts, list[int], Any]] = {}

    def of(self, name: str, parts: Parts, make: Callable[[], _Made]) -> _Made:
        """Return make(), or its cached result if `parts` have not changed since."""
        versions = [0 if part is None else changes_of(part) for part in parts]
        known = self._known.get(name)
        if known is not None and known[1] == versions and all(map(_same, known[0], parts)):
            return cast(_Made, known[2])
        made = make()
        self._known[name] = parts, versions, made
        return made

    def hold(self, name: str, made: _Made) -> _Made:
        """Return `made`, to be found by `newest` alone: `of` makes the value anew."""
        self._known[name] = (), [-1], made
        return made

    def newest(self, name: str) -> Any:
        """Return the last value cached under that name; None if there is none."""
        known = self._known.get(name)
        return None if known is None else known[2]

    def forget(self, name: str) -> None:
        """Drop the value cached under that name."""
        self._known.pop(name, None)

    def __deepcopy__(self, _memo: Any) -> None:
        """Return None: a copy of a network starts without a cache."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as None: the cache is not stored with a network."""
        return type(None), ()


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other
