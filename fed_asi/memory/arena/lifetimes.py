"""From when to when every tensor of a step is needed, and which may take the place of which."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fed_asi.memory.arena.trace import Op, Trace

aten = torch.ops.aten

# Elementwise by what they compute, though torch does not tag them so; of batch norms those whose statistics are
# fixed, by the place of the argument that says so.
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
    """A place in memory, needed from operation `first` to operation `last`, both included.

    storages: those of the trace that live in it, one after another.
    """

    name: str
    bytes: int
    first: int
    last: int
    storages: tuple[int, ...]


def lifetimes(trace: Trace, *, in_place: bool = True) -> list[Lifetime]:
    """Return every place that a step needs in the arena, by first use.

    The tensors of one storage share a place: a view keeps it. in_place: where an operation goes element by element
    and reads an input for the last time, what it makes takes that input's place.
    """
    last = last_uses(trace)
    first = {storage: 0 for storage, role in trace.roles.items() if role == "input"}
    lodgers = {storage: [storage] for storage in first}  # of each place, known by the first who lives there
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
    """Return for every storage the last operation that touches it; for one that is held, the step's last."""
    last = dict.fromkeys(trace.roles, 0)
    for index, op in enumerate(trace.ops):
        for view in (*op.read, *op.outputs):
            last[view.storage] = index
    return last | dict.fromkeys(trace.held, len(trace.ops) - 1)


def saved_bytes(trace: Trace) -> int:
    """Return the bytes alive between forward and backward; 0 of an inference.

    The activation meter's number, from lifetimes alone: of storages that the forward made, or was given, and the
    backward reads; and of factors that layers hold.
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
    """Return whether an operation reads nothing of its inputs but the element that it makes, or its row of one."""
    if op.call in TRAINING:
        return not op.args[TRAINING[op.call]]
    return op.call in ELEMENTWISE or (torch.Tag.pointwise in op.call.tags and not op.writes)


def _leaves_its_place(
    trace: Trace, op: Op, made: int, index: int, last: dict[int, int], left: set[int]
) -> int | None:
    """Return the input whose place a storage made by the operation can take; None for none."""
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
    """Return what a reader calls a place: what stays there at last, or the operation that made it."""
    known = [trace.labels[storage] for storage in storages if storage in trace.labels]
    return known[-1] if known else trace.ops[first[storages[0]]].name
