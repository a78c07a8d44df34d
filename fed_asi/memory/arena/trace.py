"""What one step did: every operation, in order, with the memory that it read and wrote."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

# The role of a storage that exists before the step. input: the data of the step. trained, frozen: parameters and
# buffers. mean: the fixed mean of a centred layer. factors: warm factors. gradient: accumulated over micro-batches.
# optimizer: its state. constant: anything else; it is only read.
Role = Literal["input", "trained", "frozen", "mean", "factors", "gradient", "optimizer", "constant"]


@dataclass(frozen=True, slots=True)
class View:
    """Where a tensor lies: the number of its storage, and its geometry within the storage, in elements."""

    storage: int
    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int

    def lies_as(self, other: View) -> bool:
        """Return whether both views have every element at the same bytes of their storages."""
        same_size = self.dtype.itemsize == other.dtype.itemsize
        return same_size and (self.shape, self.strides, self.start) == (
            other.shape,
            other.strides,
            other.start,
        )


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of torch, as it was called.

    args, kwargs: with a View in place of every tensor. outputs: views of all tensors it returned. makes, writes: the
    storages that it made, and those of its arguments that it wrote into. where: the layer or parameter that it ran for.
    read: the views among its arguments.
    """

    call: Any  # one of torch.ops.aten
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[View, ...]
    makes: tuple[int, ...]
    writes: tuple[int, ...]
    where: str
    read: tuple[View, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", tuple(views_in((self.args, self.kwargs))))

    @property
    def name(self) -> str:
        """Its operation and its layer, such as "blocks.3.conv: convolution_backward"."""
        return f"{self.where}: {self.call.overloadpacket.__name__}"


def views_in(value: Any) -> Iterator[View]:
    """Yield the views in arguments, nested ones included."""
    if isinstance(value, View):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from views_in(one)
    elif isinstance(value, dict):
        yield from views_in(tuple(value.values()))


@dataclass(slots=True)
class Trace:
    """A step as it ran; storages are numbered in the order in which they appeared.

    sizes: bytes of every storage. roles, labels: for storages that existed before the step, their role and their name
    for readers. forward: the number of operations before the backward pass. held: storages that stay alive to the end
    although nothing reads them. reads: the layers that read a number from computed data, so that other data may lead to
    other operations. results: what the step gave, by name. unmoved: for trained storages of which only a part is
    trained, the bytes of the rest.
    values, found: if asked for, the contents of `roles` before the step, and of `results` after it.
    """

    ops: list[Op] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    roles: dict[int, Role] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    forward: int = 0
    held: set[int] = field(default_factory=set)
    reads: list[str] = field(default_factory=list)
    results: dict[str, View] = field(default_factory=dict)
    unmoved: dict[int, int] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    found: dict[str, Tensor] = field(default_factory=dict)

    def bytes_of(self, *roles: Role) -> int:
        """Return the bytes of the storages with one of these roles; the untrained part of a weight counts as frozen."""
        found = sum(self.sizes[storage] for storage, role in self.roles.items() if role in roles)
        rest = sum(self.unmoved.values())
        return found - rest * ("trained" in roles) + rest * ("frozen" in roles)

    def comes_and_goes(self, storage: int) -> bool:
        """Return whether a storage lives in the arena: the step made it, or it is an input of the step."""
        return self.roles.get(storage, "input") == "input"
