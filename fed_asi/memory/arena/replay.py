"""Runs a traced step again with every tensor at its planned offset in one buffer: the proof of a layout.

The output of an operation is in the buffer before the next operation runs. Where the layout lets an output take the
place of an input, the operation itself writes there (by torch's out= variant); elsewhere its result is copied in at
once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fed_asi.errors import ConfigError, UnsupportedLayerError
from fed_asi.memory.arena.trace import Op, Trace, View
from fed_asi.torch_private import arguments_of

NOTHING = torch.empty(0).untyped_storage()


def replay(trace: Trace, offsets: Mapping[int, int], size: int) -> dict[str, Tensor]:
    """Return the results of the trace, by name, from running it in a buffer of `size` bytes.

    trace: made with values. offsets: the offset, in bytes, of every storage that lives in the buffer.
    Weights, means, factors, accumulated gradients and momentum have memory of their own, as on a device.
    Raises ConfigError for a trace without values or a layout that exceeds the buffer, and UnsupportedLayerError for a
    step that draws random numbers.
    """
    if not trace.values:
        raise ConfigError(
            "the step was traced without its values, so it cannot be run again; trace it with them"
        )
    memory = _Memory(trace, offsets, size)
    with torch.no_grad():
        for op in trace.ops:
            _run(op, memory)
    return {name: memory.tensor(view).clone() for name, view in trace.results.items()}


class _Memory:
    """One buffer, and the storages outside it."""

    def __init__(self, trace: Trace, offsets: Mapping[int, int], size: int) -> None:
        self.offsets = offsets
        # All bits set is NaN as a float, so a read before the first write shows in the results.
        self.buffer = torch.full((size,), 255, dtype=torch.uint8)
        self.beside = {
            storage: value.clone().untyped_storage()
            for storage, value in trace.values.items()
            if not trace.comes_and_goes(storage)
        }
        for storage, value in trace.values.items():
            if trace.comes_and_goes(storage):
                self.tensor(View(storage, torch.uint8, tuple(value.shape), (1,), 0)).copy_(value)

    def tensor(self, view: View) -> Tensor:
        """Return the tensor that a view describes."""
        storage, base = self.beside.get(view.storage), 0
        if storage is None and view.storage in self.offsets:
            storage, base = self.buffer.untyped_storage(), self.offsets[view.storage]
            self._check(view, base)
        start = base // view.dtype.itemsize + view.start
        return torch.empty(0, dtype=view.dtype).set_(storage or NOTHING, start, view.shape, view.strides)

    def _check(self, view: View, base: int) -> None:
        """Raise ConfigError for a tensor that ends outside the buffer; torch would silently enlarge the buffer."""
        steps = zip(view.shape, view.strides, strict=True)
        last = view.start + sum((n - 1) * stride for n, stride in steps)
        end = base + (last + 1) * view.dtype.itemsize if 0 not in view.shape else 0
        if not 0 <= end <= self.buffer.nbytes:
            raise ConfigError(
                f"the layout puts a tensor's end at byte {end} of a buffer of {self.buffer.nbytes}; "
                "it is not the layout of this step"
            )

    def bound(self, value: Any) -> Any:
        """Return the arguments with tensors in place of their views."""
        if isinstance(value, View):
            return self.tensor(value)
        if isinstance(value, (tuple, list)):
            return type(value)([self.bound(one) for one in value])
        if isinstance(value, dict):
            return {key: self.bound(one) for key, one in value.items()}
        return value


def _run(op: Op, memory: _Memory) -> None:
    if _draws(op):
        raise UnsupportedLayerError(
            f"{op.name} draws random numbers, so the step cannot be run again as it was"
        )
    if not (op.makes or op.writes) or torch.Tag.inplace_view in op.call.tags:
        return  # it only makes a view, and every View has its own geometry
    args, kwargs = memory.bound(op.args), memory.bound(op.kwargs)
    made = [view for view in op.outputs if view.storage in op.makes]
    alone = len(made) == len(op.outputs) == 1
    into = _writing_form(op.call) if alone and _in_place(op, made[0], memory) else None
    if into is not None:
        call, name = into
        call(*args, **kwargs, **{name: memory.tensor(made[0])})
        return
    results = _flat(op.call(*args, **kwargs))
    for view, result in zip(op.outputs, results, strict=True):
        if view.storage in op.makes:
            memory.tensor(view).copy_(result)


def _draws(op: Op) -> bool:
    """Return whether an operation draws random numbers; attention with a dropout of 0 does not."""
    if torch.Tag.nondeterministic_seeded not in op.call.tags:
        return False
    names = [name.partition(":")[0] for name in arguments_of(op.call)[0]]
    if "dropout_p" not in names:
        return True
    place = names.index("dropout_p")
    dropout = op.args[place] if place < len(op.args) else op.kwargs.get("dropout_p", 0.0)
    return bool(dropout != 0.0)


def _in_place(op: Op, made: View, memory: _Memory) -> bool:
    """Return whether the layout puts the output at the offset of one of the operation's inputs."""
    at = memory.offsets.get(made.storage)
    return at is not None and any(memory.offsets.get(view.storage) == at for view in op.read)


@lru_cache(maxsize=1024)
def _writing_form(call: Any) -> tuple[Any, str] | None:
    """Return (the out= variant of an operation, the name of its output argument); None where torch has none."""
    own, _ = arguments_of(call)
    packet = call.overloadpacket
    for name in packet.overloads():
        other = getattr(packet, name)
        plain, written = arguments_of(other)
        if torch.Tag.out in other.tags and len(written) == 1 and plain == own:
            return other, written[0]
    return None


def _flat(values: Any) -> list[Tensor]:
    if isinstance(values, Tensor):
        return [values]
    return [one for value in values for one in _flat(value)] if isinstance(values, Iterable) else []
