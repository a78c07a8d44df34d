"""Random draws of a layer from a stream of its own, the same when a forward is done a second time.

Draws are numbered by a layer's forwards. A forward inside a backward, as gradient checkpointing does, is a second
one: it takes the number of the forward whose input it has, told by a sum over the input's bits.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fed_asi import seeds
from fed_asi.layers.base import LayerState
from fed_asi.torch_private import backward_is_running

REMEMBERED = 4096  # forwards whose backward is still to come; older ones are forgotten
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

Mark = tuple[tuple[int, ...], tuple[int, ...] | Tensor]


@dataclass(slots=True)
class DrawState(LayerState):
    """The state of a random layer.

    calls: first forwards so far, which number the draws. waiting: (number, mark of the input) of the newest ones.
    """

    calls: int = 0
    waiting: deque[tuple[int, Mark]] = field(default_factory=lambda: deque(maxlen=REMEMBERED))


def draws_for(state: DrawState, purpose: str, x: Tensor) -> torch.Generator:
    """Return the stream for a forward on x, on CPU; a second forward on the same input gets the same stream."""
    mark = _mark(x)
    if is_second_forward():
        number = _number_of(state, mark)
    else:
        number = state.calls
        state.calls += 1
        state.waiting.append((number, mark))
    return seeds.generator(state.seed, purpose, state.name, number)


def is_second_forward() -> bool:
    """Return whether a backward is running in this thread, so that a forward now repeats an earlier one."""
    return backward_is_running()


def _number_of(state: DrawState, mark: Mark) -> int:
    """The newest first forward on this input; backwards run from the last forward to the first."""
    for place, (number, seen) in reversed(list(enumerate(state.waiting))):
        if _equal(seen, mark):
            del state.waiting[place]
            return number
    return max(0, state.calls - 1)


def _mark(x: Tensor) -> Mark:
    """What tells inputs apart: shape, and sums over bits of all elements and of every second one.

    The sums stay where the input is, so that a forward never waits for a device.
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
