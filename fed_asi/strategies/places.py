"""The places of a tensor that the same devices trained; a strategy treats each such group as a tensor of its own.

If every device that trained a tensor trained all of it, there is one group: the whole tensor. If some trained a part,
such as some input channels, a place is a pair of indices of the first two dimensions, with everything behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from fed_asi.strategies.aggregate import Slice, Update

AT_ONCE = 1 << 16  # numbers of a mean: of them and of a summand, in float64, each half a MiB


Said = tuple[
    Update, float, Tensor
]  # who trained it, with which weight, and the numbers, without a float64 copy of each


@dataclass(frozen=True, slots=True)
class Places:
    """Some places of a tensor. cells: their indices, (k,); None: all of it, in its own shape. said: by device."""

    cells: Tensor | None
    said: tuple[Said, ...]

    @property
    def total(self) -> float:
        """The sum of the weights of the devices."""
        return sum(share for _, share, _ in self.said)

    def of(self, whole: Tensor) -> Tensor:
        """Return these places of a tensor: itself, or (k, ...)."""
        return whole if self.cells is None else by_cell(whole)[self.cells]

    def put(self, whole: Tensor, values: Tensor) -> Tensor:
        """Return a tensor with other values at these places."""
        if self.cells is None:
            return values
        found = by_cell(whole).clone()
        found[self.cells] = values
        return found.reshape(whole.shape)

    def mean(self) -> Tensor:
        """Return the weighted mean over the devices, float64."""
        shape = self.said[0][2].shape
        found = torch.empty(shape.numel(), dtype=torch.float64)
        for place, part in self.mean_by_parts():
            found[place] = part
        return found.view(shape)

    def mean_by_parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the weighted mean over the devices part by part, float64, with its place in the flat tensor.

        A part and what is summed into it stay in a core's cache, which takes a third of the time of whole tensors.
        """
        told = [(share, values.reshape(-1)) for _, share, values in self.said]
        total, numel = self.total, self.said[0][2].numel()
        for start in range(0, numel, AT_ONCE):
            place = slice(start, start + AT_ONCE)
            found = torch.zeros(min(AT_ONCE, numel - start), dtype=torch.float64)
            for share, values in told:
                found += values[place].to(torch.float64).mul_(share)
            yield place, found.div_(total)


def places_of(name: str, updates: Sequence[Update], tensor: Tensor) -> Iterator[Places]:
    """Yield the groups of places of a global tensor that some device trained with a weight above 0."""
    who = [update for update in updates if name in update.tensors and update.share(name) > 0.0]
    if not who:
        return
    if not any(name in update.slices for update in who):
        yield Places(None, tuple((u, u.share(name), u.tensors[name]) for u in who))
        return
    cells = torch.stack([cells_of(update.slices.get(name), tensor) for update in who])
    wholes = [by_cell(whole_of(update, name, tensor)) for update in who]
    groups, which = torch.unique(cells, dim=1, return_inverse=True)
    for number in range(groups.shape[1]):
        here = (which == number).nonzero().flatten()
        told = [i for i in range(len(who)) if bool(groups[i, number])]
        if told:
            yield Places(here, tuple((who[i], who[i].share(name), wholes[i][here]) for i in told))


def by_cell(whole: Tensor) -> Tensor:
    """Return a tensor with its first two dimensions merged, and all others merged: (cells, ...)."""
    count = prod(whole.shape[:2])
    return whole.reshape(count, whole.numel() // count if count else 0)


def cells_of(part: Slice | None, tensor: Tensor) -> Tensor:
    """Return which cells of a tensor a part covers, (cells,) bool."""
    found = torch.zeros(tensor.shape[:2] if tensor.dim() else (1,), dtype=torch.bool)
    if part is None:
        return torch.ones_like(found).flatten()
    return found.index_fill(part.dim, part.index, True).flatten()


def base_of(update: Update, name: str, tensor: Tensor) -> Tensor:
    """Return the part of a global tensor that an update trained, in the shape of that part, float64."""
    part = update.slices.get(name)
    whole = tensor.to(torch.float64)
    return whole if part is None else whole.index_select(part.dim, part.index)


def whole_of(update: Update, name: str, tensor: Tensor, key: str | None = None) -> Tensor:
    """Return an update's tensor, or its tensor of kind `key`, in the shape of the global one, float64.

    Where the device trained nothing it has the global numbers; with a key, 0.
    """
    values = (update.tensors[name] if key is None else update.extra[key]).to(torch.float64)
    part = update.slices.get(name)
    if part is None:
        return values
    around = tensor.to(torch.float64) if key is None else torch.zeros(tensor.shape, dtype=torch.float64)
    return around.index_copy(part.dim, part.index, values)
