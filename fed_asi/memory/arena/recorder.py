"""Records every operation that runs inside it, forward and backward, and the memory it touches.

A recorder sees the step as torch runs it, including custom autograd functions, in-place writes and out= arguments. A
symbolic trace (`make_fx` with functionalization) refuses some of this: writes through `as_strided`, and ranks that
depend on the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from fed_asi.layers import only_looks
from fed_asi.memory.arena.trace import Op, Role, Trace, View
from fed_asi.memory.storages import tensors_in
from fed_asi.torch_private import DispatchMode, storage_id, written_arguments

OUTSIDE = "(loss)"  # the name given to what runs outside all modules
READS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class Recorder(DispatchMode):  # type: ignore[no-untyped-call]
    """Records in `trace` what runs inside it; it changes nothing and keeps nothing alive.

    model: the model whose layers are named. with_values: copy what exists before the step, to allow a replay.
    where: the name given to operations outside all modules.
    """

    def __init__(self, model: nn.Module, *, with_values: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace, self.where = Trace(), OUTSIDE
        self._with_values = with_values
        self._names = {id(module): name or type(module).__name__ for name, module in model.named_modules()}
        self._parameters = {id(parameter): name for name, parameter in model.named_parameters()}
        self._modules: list[str] = []
        # While a weak reference to a storage exists, no other storage gets its id.
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}
        self._nodes: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Start recording."""
        self._handles = [
            register_module_forward_pre_hook(only_looks(self._before)),
            register_module_forward_hook(only_looks(self._after)),
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop recording."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self._handles:
            handle.remove()
        self._nodes.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and record it."""
        kwargs = kwargs or {}
        taken, named = self._noted(args), self._noted(kwargs)
        written = tuple(view.storage for view in self._views(written_arguments(func, args, kwargs)))
        first = len(self.trace.sizes)
        out = func(*args, **kwargs)
        outputs = tuple(self._views([out]))
        makes = tuple(range(first, len(self.trace.sizes)))
        op = Op(
            func, taken, named, outputs, makes, written, self._modules[-1] if self._modules else self.where
        )
        if READS & set(func.tags) and any(self.trace.comes_and_goes(view.storage) for view in op.read):
            self.trace.reads.append(op.where)
        self.trace.ops.append(op)
        return out

    def declare(self, tensor: Tensor, role: Role, label: str) -> int:
        """Return the number of a storage that exists before the step; its first declaration counts."""
        return self.view(tensor, role, label).storage

    def view(self, tensor: Tensor, role: Role | None = None, label: str = "") -> View:
        """Return where a tensor lies. role: the role of a storage not seen before; None: the step just made it."""
        number = self._number(tensor.untyped_storage(), role, label)
        return View(number, tensor.dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))

    def knows(self, tensor: Tensor) -> bool:
        """Return whether a tensor's storage has been seen."""
        return storage_id(tensor.untyped_storage()) in self._known

    def _number(self, storage: torch.UntypedStorage, role: Role | None, label: str = "") -> int:
        key, trace = storage_id(storage), self.trace
        if key not in self._known:
            number = len(trace.sizes)
            self._known[key] = (StorageWeakRef(storage), number)  # type: ignore[no-untyped-call]
            trace.sizes.append(0)
            if role is not None:
                trace.roles[number], trace.labels[number] = role, label
                if self._with_values:
                    trace.values[number] = torch.empty(0, dtype=torch.uint8).set_(storage).clone()
        number = self._known[key][1]
        trace.sizes[number] = max(trace.sizes[number], storage.nbytes())  # resize_ may have enlarged it
        return number

    def _noted(self, value: Any) -> Any:
        """Return the arguments with a View in place of every tensor and storage."""
        if isinstance(value, Tensor):
            return self.view(value, "constant", f"constant of {self.where}")
        if isinstance(value, torch.UntypedStorage):
            return View(self._number(value, "constant"), torch.uint8, (value.nbytes(),), (1,), 0)
        if isinstance(value, (tuple, list)):
            return type(value)([self._noted(one) for one in value])
        if isinstance(value, dict):
            return {key: self._noted(one) for key, one in value.items()}
        return value

    def _views(self, values: Any) -> Iterator[View]:
        return (self.view(tensor) for tensor in tensors_in(values))

    def _before(self, module: nn.Module, _args: Any) -> None:
        if id(module) in self._names:
            self._modules.append(self._names[id(module)])

    def _after(self, module: nn.Module, _args: Any, output: Any) -> None:
        if id(module) not in self._names:
            return
        for tensor in tensors_in(output):
            self._name_nodes(tensor.grad_fn, self._modules[-1])
        self._modules.pop()

    def forward_is_over(self, loss: Tensor) -> None:
        """Mark the end of the forward pass, and prepare to name every operation of the backward pass."""
        self.trace.forward = len(self.trace.ops)
        self._name_nodes(loss.grad_fn, OUTSIDE)
        self._nodes.clear()  # they would keep the graph alive

    def _name_nodes(self, node: Any, name: str) -> None:
        """Attribute to `name` what the backward pass does for the autograd nodes that are new since the last call."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node is None or id(node) in self._nodes:
                continue
            self._nodes[id(node)] = node
            node.register_prehook(
                partial(self._go_to, self._parameters.get(id(getattr(node, "variable", None)), name))
            )
            waiting.extend(before for before, _ in node.next_functions)

    def _go_to(self, where: str, _gradients: Any) -> None:
        self.where = where
