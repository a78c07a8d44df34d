"""What a layer's frozen numbers come to, remembered from one step to the next where steps are only simulated.

A device has them in its flash, a batch norm folded into its weight. Without a memory of them every step of one image
makes them anew, in as many calls of torch as its arithmetic takes. They are no activations: no meter counts them, and
a step that is traced for the memory of a device remembers nothing, as copies of a network do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor

from fed_asi.torch_private import changes_of

_Made = TypeVar("_Made")
Parts = tuple[Tensor | None, ...]


class Constants:
    """What was made of tensors, by name, as long as these are the same and nobody has written into them."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[Parts, list[int], Any]] = {}

    def of(self, name: str, parts: Parts, make: Callable[[], _Made]) -> _Made:
        """Return what `make` makes of the parts, or has made of them before."""
        versions = [0 if part is None else changes_of(part) for part in parts]
        known = self._known.get(name)
        if known is not None and known[1] == versions and all(map(_same, known[0], parts)):
            return cast(_Made, known[2])
        made = make()
        self._known[name] = parts, versions, made
        return made

    def newest(self, name: str) -> Any:
        """Return what was made last by that name, None where nothing was."""
        known = self._known.get(name)
        return None if known is None else known[2]

    def forget(self, name: str) -> None:
        """Remember nothing by that name."""
        self._known.pop(name, None)

    def __deepcopy__(self, _memo: Any) -> None:
        """Return nothing: a copy of a network remembers nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave nothing to what is written of a network."""
        return type(None), ()


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other
