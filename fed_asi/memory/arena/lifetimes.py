"""The lifetime of every tensor of a step, and which tensor may take the place of which."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fed_asi.memory.arena.trace import Op, Trace

aten = torch.ops.aten

# Elementwise operations that torch does not tag as such. Batch norms are elementwise if their statistics are fixed:
# TRAINING has the index of the argument that says so.
ELEMENTWISE = {
    aten.hardtanh_backward.default,
    aten.leaky_relu_backward.default,
    aten.hardswish_backward.default,
    aten.hardsigmoid_backward.default,
    aten.elu_backward.default,
}
TRAINING = {aten.native_batch_norm.default: 5, aten.native_batch_norm_backward.default: 7}


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A place in the arena, needed from operation `first` to operation `last`, both included.

    storages: the storages of the trace that occupy it, one after another.
    """

    name: str
    bytes: int
    first: int
    last: int
    storages: tuple[int, ...]


def lifetimes(trace: Trace, *, in_place: bool = True) -> list[Lifetime]:
    """Return every place in the arena that a step needs, in the order of first use.

    The tensors of one storage share a place, so a view keeps it alive. in_place: where an elementwise operation reads
    an input for the last time, its output takes the place of that input.
    """
    last = last_uses(trace)
    first = {storage: 0 for storage, role in trace.roles.items() if role == "input"}
    lodgers = {storage: [storage] for storage in first}  # by place, keyed by the first storage in it
    place = {storage: storage for storage in first}
    for index, op in enumerate(trace.ops):
        left: set[int] = set()
        for made in op.makes:
            before = _leaves_its_place(trace, op, made, index, last, left) if in_place else None
            place[made] = made if before is None else place[before]
            lodgers.setdefault(place[made], []).append(made)
            first[made] = index
            if before is not None:
                left.add(before)
    return [
        Lifetime(_name(trace, one, first), trace.sizes[at], first[at], max(last[s] for s in one), tuple(one))
        for at, one in lodgers.items()
        if trace.sizes[at] > 0
    ]


def last_uses(trace: Trace) -> dict[int, int]:
    """Return, for every storage, the last operation that uses it; for a held storage, the last of the step."""
    last = dict.fromkeys(trace.roles, 0)
    for index, op in enumerate(trace.ops):
        for view in (*op.read, *op.outputs):
            last[view.storage] = index
    return last | dict.fromkeys(trace.held, len(trace.ops) - 1)


def saved_bytes(trace: Trace) -> int:
    """Return the bytes alive between forward and backward; 0 for an inference.

    It equals the activation meter's number, but follows from lifetimes alone: of storages that the forward made or was
    given and the backward reads, and of factors that layers hold.
    """
    last = last_uses(trace)
    after = {storage for op in trace.ops[trace.forward :] for storage in op.makes}
    if "loss" not in trace.results:
        return 0
    loss = trace.results["loss"].storage
    alive = (
        storage
        for storage, size in enumerate(trace.sizes)
        if trace.comes_and_goes(storage) and storage not in after and last[storage] >= trace.forward
    )
    return trace.bytes_of("factors") + sum(trace.sizes[storage] for storage in alive if storage != loss)


def goes_element_by_element(op: Op) -> bool:
    """Return whether each output element depends only on the same element of the inputs, broadcasting included."""
    if op.call in TRAINING:
        return not op.args[TRAINING[op.call]]
    return op.call in ELEMENTWISE or (torch.Tag.pointwise in op.call.tags and not op.writes)


def _leaves_its_place(
    trace: Trace, op: Op, made: int, index: int, last: dict[int, int], left: set[int]
) -> int | None:
    """Return the input whose place a storage made by the operation can take; None if there is none."""
    new = next((view for view in op.outputs if view.storage == made), None)
    if new is None or not goes_element_by_element(op):
        return None
    read = op.read
    for old in read:
        same = [view.lies_as(new) for view in read if view.storage == old.storage]
        dies = last[old.storage] == index and trace.comes_and_goes(old.storage)
        if dies and all(same) and trace.sizes[old.storage] == trace.sizes[made] and old.storage not in left:
            return old.storage
    return None


def _name(trace: Trace, storages: list[int], first: dict[int, int]) -> str:
    """Return the name of a place for readers: the label of its last labelled storage, or the operation that made it."""
    known = [trace.labels[storage] for storage in storages if storage in trace.labels]
    return known[-1] if known else trace.ops[first[storages[0]]].name
