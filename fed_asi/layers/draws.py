"""Random draws from a layer's own stream; a forward pass that is recomputed draws the same numbers again.

Draws are numbered by the forward passes of a layer. A forward inside a backward, as in gradient checkpointing, is a
recomputation: it reuses the number of the earlier forward with the same input, which is recognised by a sum over the
bits of the input.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fed_asi import seeds
from fed_asi.layers.base import LayerState
from fed_asi.torch_private import backward_is_running

REMEMBERED = 4096  # forward passes whose backward is still to come; older ones are forgotten
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Mark = tuple[tuple[int, ...], tuple[int, ...] | Tensor]


@dataclass(slots=True)
class DrawState(LayerState):
    """The state of a random layer.

    calls: number of first forward passes so far, which numbers the draws. waiting: (number, mark of the input) of the
    newest of them.
    """

    calls: int = 0
    waiting: deque[tuple[int, Mark]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


def draws_for(state: DrawState, purpose: str, x: Tensor) -> torch.Generator:
    """Return the random stream for a forward on x, on CPU; recomputing a forward gives the same stream again."""
    mark = _mark(x)
    if is_second_forward():
        number = _number_of(state, mark)
    else:
        number = state.calls
        state.calls += 1
        state.waiting.append((number, mark))
    return seeds.generator(state.seed, purpose, state.name, number)


def is_second_forward() -> bool:
    """Return whether a backward is running in this thread, so that a forward now is a recomputation."""
    return backward_is_running()


def _number_of(state: DrawState, mark: Mark) -> int:
    """Return the number of the newest forward on this input; backward passes run in reverse order."""
    for place, (number, seen) in reversed(list(enumerate(state.waiting))):
        if _equal(seen, mark):
            del state.waiting[place]
            return number
    return max(0, state.calls - 1)


def _mark(x: Tensor) -> Mark:
    """Return what identifies an input: its shape, and sums over the bits of all elements and of every second one.

    The sums stay on the input's device, so that a forward pass never waits for a GPU.
    """
    bits = x.detach().contiguous().view(_BITS[x.element_size()]).flatten()
    sums = torch.stack([bits.sum(dtype=torch.int64), bits[::2].sum(dtype=torch.int64)])
    return tuple(x.shape), tuple(sums.tolist()) if x.device.type == "cpu" else sums


def _equal(a: Mark, b: Mark) -> bool:
    if a[0] != b[0]:
        return False
    if isinstance(a[1], Tensor) and isinstance(b[1], Tensor):
        return torch.equal(a[1], b[1])
    return a[1] == b[1]
