"""Rounds for the tests of strategies: made by hand or drawn, with whole and partial updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from hypothesis import strategies as st
from torch import Tensor

from fed_asi.strategies import Round, State, Strategy, Update

SHAPES = {"conv.weight": (3, 2, 2), "conv.bias": (3,), "head.weight": (2, 3)}
DEVICES = 12


def gaussian(seed: int, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Return named tensors that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=dtype) * scale for name, shape in SHAPES.items()
    }


def variates(tensors: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return what SCAFFOLD's devices send beside these tensors."""
    drawn = gaussian(seed + 1000, 0.1)
    return {f"variate..{name}": drawn[name] for name in tensors}


def whole(ids: Sequence[int], tensors: Mapping[str, Tensor], round: int = 1, momentum: float = 0.0) -> Round:
    """Return a round in which each of these devices trained all tensors, near the global ones."""
    updates = []
    for k in ids:
        moved = gaussian(100 * round + k, 0.1)
        new = {name: tensors[name] + moved[name] for name in tensors}
        updates.append(Update(k, 5 + 3 * k, new, {}, 2 + k, variates(new, 100 * round + k)))
    return Round.of(round, tensors, updates, DEVICES, momentum)


@st.composite
def rounds(draw: st.DrawFn, fewest: int = 0) -> Round:
    """A round of a few devices, each of which trained some of the tensors, and always the head."""
    tensors = gaussian(draw(st.integers(0, 5)))
    updates = []
    for k in draw(st.lists(st.integers(0, DEVICES - 1), min_size=fewest, max_size=6, unique=True)):
        moved = gaussian(draw(st.integers(6, 30)), draw(st.sampled_from([0.0, 0.1, 10.0])))
        names = ["head.weight", *draw(st.lists(st.sampled_from(["conv.weight", "conv.bias"]), unique=True))]
        new = {name: tensors[name] + moved[name] for name in names}
        updates.append(
            Update(k, draw(st.integers(1, 50)), new, {}, draw(st.integers(1, 9)), variates(new, k))
        )
    return Round.of(draw(st.integers(1, 9)), tensors, updates, DEVICES, draw(st.sampled_from([0.0, 0.9])))


def several(strategy: Strategy, given: Sequence[Round]) -> tuple[dict[str, Tensor], State]:
    """Return where rounds lead, each from the tensors of the one before."""
    tensors, state = dict(given[0].tensors), dict[str, Tensor]()
    for one in given:
        found = strategy.combine(Round(one.round, tensors, one.updates, one.devices, one.momentum), state)
        tensors, state = found.tensors, found.state
    return tensors, state
