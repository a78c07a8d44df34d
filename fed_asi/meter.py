"""How many bytes a step really keeps between its forward and its backward.

Counted are storages, not elements, because a saved view pins the whole storage behind it. Three places
hold them: autograd's saved variables, attributes that Python autograd functions put on their context, and
attributes of the modules themselves (warm-start factors). Parameters, buffers and declared constants are
weights, not activations, and are left out here; `fed_asi.memory` counts them under their own names.
Out of sight stays only what Python cannot reach: tensors inside closures of user hooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from types import FunctionType, TracebackType
from typing import Any, Self, cast
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import LayerState, original_class, state_of

MODEL = "(model)"
LOSS = "(loss)"
RECOMPUTATION = "recomputation"
_MODULE_ATTRIBUTES = frozenset(nn.Module().__dict__)
_PLAIN = frozenset({int, float, bool, str, type(None), torch.Size, torch.dtype, torch.device, FunctionType})
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


class ActivationMeter:
    """Measure the bytes kept for backward by what runs inside the `with` block.

    model: plain or compressed. micro_batches: how many micro-batches the block's one batch stands for when
    they run side by side (a Fraction N / b when b does not divide N). constants: tensors that are there anyway.

    After the block, while the loss is still held:
        saved_bytes: all storages alive that autograd or the layers hold, each once.
        state_bytes: the part of them held by modules across steps (warm-start factors).
        published_bytes: the papers' count, inputs (or factors) of trained convolutions alone.
        by_layer, by_kind: saved_bytes by qualified module name and by class; a storage that two layers
            keep counts for the first. Functional code outside any module is "(loss)".
    The meter may be entered again for every step; the last block's numbers stay until then.
    """

    def __init__(
        self, model: nn.Module, micro_batches: int | Fraction = 1, constants: Sequence[Tensor] = ()
    ) -> None:
        if micro_batches <= 0:
            raise ValueError(f"micro_batches is {micro_batches}; it must be above 0")
        self.micro_batches = micro_batches
        self._constants = tuple(constants)
        self.saved_bytes = 0
        self.state_bytes = 0
        self.published_bytes = 0
        self.by_layer: dict[str, int] = {}
        self.by_kind: dict[str, int] = {}
        self._modules = [(name or MODEL, module) for name, module in model.named_modules()]
        self._clear()

    @property
    def per_micro_batch_bytes(self) -> int:
        """Bytes kept by one full micro-batch: its share of the batch, and all of the shared state."""
        return ceil((self.saved_bytes - self.state_bytes) / self.micro_batches) + self.state_bytes

    def __enter__(self) -> Self:
        """Start counting."""
        self._clear()
        self._names = {id(module): name for name, module in self._modules}
        # Hooks on all modules of the process are two registrations instead of two for each layer.
        self._handles.append(register_module_forward_pre_hook(self._before))
        self._handles.append(register_module_forward_hook(self._after))
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting and add up what is still alive."""
        self._hooks.__exit__(kind, error, trace)
        for handle in self._handles:
            handle.remove()
        self._visited.clear()  # these would keep dropped parts of the graph alive
        self._add_up()
        self._clear()

    def _clear(self) -> None:
        self._stack: list[str] = []
        self._held: list[tuple[ReferenceType[Tensor], str]] = []
        self._visited: dict[int, Any] = {}
        self._handles: list[RemovableHandle] = []
        self._published = 0

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        name = self._names.get(id(module))
        if name is None:
            return
        self._stack.append(name)
        if isinstance(module, _CONVOLUTIONS) and state_of(module) is None and torch.is_grad_enabled():
            self._published += _published_bytes(module, args)

    def _after(self, module: nn.Module, _args: Any, output: Any) -> None:
        if id(module) not in self._names:
            return
        for tensor in (output,) if isinstance(output, Tensor) else tensors_in(output):
            if tensor.grad_fn is not None:
                self._walk(tensor.grad_fn)
        state = state_of(module)
        if state is not None and isinstance(module, _CONVOLUTIONS) and torch.is_grad_enabled():
            self._published += state.kept_bytes if module.weight.requires_grad else 0
        if self._stack:
            self._stack.pop()

    def _walk(self, node: Any) -> None:
        """Look at the contexts of the Python autograd functions since the last look."""
        pending = [node]
        while pending:
            node = pending.pop()
            if id(node) in self._visited:
                continue
            self._visited[id(node)] = node
            if isinstance(node, BackwardCFunction):
                for tensor in tensors_in(vars(node)):
                    self._held.append((ref(tensor), self._stack[-1] if self._stack else LOSS))
            pending.extend(before for before, _ in node.next_functions if before is not None)

    def _pack(self, tensor: Tensor) -> Tensor:
        # Returned as it is, an operation's own output would hold its node and never be freed. This alias
        # belongs to autograd alone, so it lives exactly as long as autograd keeps the storage.
        held = tensor.detach()
        if held.layout is not torch.strided:
            storages_of(held)  # raises now for what could not be counted later
        self._held.append((ref(held), self._stack[-1] if self._stack else LOSS))
        return held

    def _add_up(self) -> None:
        counted = self._weights()
        state = self._record_state()
        kinds = {name: original_class(module).__name__ for name, module in self._modules}
        self.saved_bytes = self.state_bytes = 0
        self.published_bytes = self._published
        self.by_layer, self.by_kind = {}, {}
        for held, name in self._held:
            tensor = held()
            for storage in () if tensor is None else storages_of(tensor):
                if storage._cdata not in counted:
                    counted.add(storage._cdata)
                    self._count(name, kinds.get(name, name), storage.nbytes(), storage._cdata in state)
        for name, module in self._modules:  # gradient checkpointing keeps these in the backward alone
            if size := module.__dict__.get("recomputed_bytes", 0):
                self._count(name, RECOMPUTATION, size, False)

    def _count(self, name: str, kind: str, size: int, is_state: bool) -> None:
        self.saved_bytes += size
        self.state_bytes += size if is_state else 0
        self.by_layer[name] = self.by_layer.get(name, 0) + size
        self.by_kind[kind] = self.by_kind.get(kind, 0) + size

    def _weights(self) -> set[int]:
        found = {storage._cdata for tensor in self._constants for storage in storages_of(tensor)}
        for _, module in self._modules:
            for tensor in (*module._parameters.values(), *module._buffers.values(), *static_tensors(module)):
                if tensor is not None:
                    found.update(storage._cdata for storage in storages_of(tensor))
        return found

    def _record_state(self) -> set[int]:
        # Side by side, the newest factors are a copy that micro-batches one after another would not need.
        side_by_side = self.micro_batches > 1
        found: set[int] = set()
        for name, module in self._modules:
            for key in module.__dict__.keys() - _MODULE_ATTRIBUTES:
                value = module.__dict__[key]
                if type(value) in _PLAIN:
                    continue
                if isinstance(value, LayerState):
                    value = [value.factors, None if side_by_side else value.pending]
                for tensor in tensors_in(value):
                    self._held.append((ref(tensor), name))
                    found.update(storage._cdata for storage in storages_of(tensor))
        return found


def static_tensors(module: nn.Module) -> list[Tensor]:
    """Return the constants a compressed layer got from calibration (its fixed mean): weights in effect."""
    state = state_of(module)
    return [] if state is None or state.mean is None else [state.mean]


def tensors_in(value: Any) -> list[Tensor]:
    """Return the tensors in a value: itself, or those in containers and dataclasses.

    Modules and the states of compressed layers are passed over; what they hold is looked at by itself.
    """
    found: list[Tensor] = []
    _collect(value, found, 4)
    return found


def _collect(value: Any, found: list[Tensor], depth: int) -> None:
    kind = type(value)
    if kind in _PLAIN:  # most attributes of modules; this is the meter's innermost loop
        return
    if isinstance(value, Tensor):
        found.append(value)
    elif depth == 0 or isinstance(value, (LayerState, type)):
        return
    elif isinstance(value, (list, tuple, set)):
        for item in value:
            if type(item) not in _PLAIN:
                _collect(item, found, depth - 1)
    elif isinstance(value, dict):
        for item in value.values():
            if type(item) not in _PLAIN:
                _collect(item, found, depth - 1)
    elif hasattr(kind, "__dataclass_fields__"):
        for name in kind.__dataclass_fields__:
            _collect(getattr(value, name, None), found, depth - 1)


def storages_of(tensor: Tensor) -> list[torch.UntypedStorage]:
    """Return the storages behind a tensor: one, or those of a sparse tensor's parts.

    Raises UnsupportedLayerError for layouts that hide theirs.
    """
    if tensor.layout is torch.strided:
        return [tensor.untyped_storage()]
    if tensor.layout is torch.sparse_coo:
        parts = [tensor._indices(), tensor._values()]
    elif tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        parts = [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    elif tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        parts = [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    else:
        raise UnsupportedLayerError(f"a saved tensor of layout {tensor.layout} has no measurable storage")
    return [part.untyped_storage() for part in parts]


def _unpack(tensor: Tensor) -> Tensor:
    return tensor


def _published_bytes(module: nn.Module, args: tuple[Any, ...]) -> int:
    """Return what the papers count for one call of a convolution: 0 unless its weight is trained."""
    weight = cast(Tensor, module.weight)
    if not weight.requires_grad or not args or not isinstance(args[0], Tensor):
        return 0
    return args[0].numel() * args[0].element_size()
