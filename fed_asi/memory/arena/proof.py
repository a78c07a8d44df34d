"""The proof of a layout: the step, run again in a buffer of the arena's size, gives the same results as in torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_asi.memory.arena.offsets import ALIGNMENT
from fed_asi.memory.arena.planned import Arena, laid_out
from fed_asi.memory.arena.replay import replay
from fed_asi.memory.arena.trace import Trace


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of running a step again in a buffer of `arena.bytes`.

    differences: the largest difference in each result (the loss, each gradient or trained weight). equal: whether all
    results are the same to the bit.
    """

    arena: Arena
    differences: dict[str, float]

    @property
    def equal(self) -> bool:
        """Whether every result is the same to the bit."""
        return not any(self.differences.values())


def proved(trace: Trace, alignment: int = ALIGNMENT) -> Proof:
    """Return how the results of a traced step, run again in its arena, differ from torch's. trace: made with values."""
    found = laid_out(trace, alignment)
    results = replay(trace, offsets_of(found), found.bytes)
    return Proof(found, {name: _difference(results[name], trace.found[name]) for name in trace.found})


def offsets_of(found: Arena) -> dict[int, int]:
    """Return the offset of every storage of the trace that lives in the arena."""
    return {storage: one.offset for one in found.tensors for storage in one.storages}


def _difference(a: Tensor, b: Tensor) -> float:
    """Return the largest absolute difference; infinite where only one of the two is NaN."""
    if torch.equal(a, b):
        return 0.0
    return float((a.double() - b.double()).abs().nan_to_num(nan=math.inf).max())
