"""The bytes that a step actually keeps between its forward and its backward pass.

Storages are counted, not elements, because a saved view keeps the whole storage behind it alive. Three places hold
them: autograd's saved variables, attributes that Python autograd functions set on their context, and attributes of
the modules themselves (warm factors). Parameters, buffers and declared constants are weights, not activations, and
are left out here; `fed_asi.memory` counts them under their own names. What a network's own saved-tensor hooks keep
instead, such as copies on another device, is counted too. Only what Python cannot reach stays uncounted: tensors in
the fields of a custom C++ autograd function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from math import ceil
from types import TracebackType
from typing import Any, Self
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from fed_asi.errors import UnsupportedLayerError
from fed_asi.layers import only_looks
from fed_asi.layers.function import Call
from fed_asi.memory.holders import Keepers, Weights, is_plain_convolution
from fed_asi.memory.inner_hooks import noted
from fed_asi.memory.storages import PLAIN, storages_of, tensors_in
from fed_asi.torch_private import PYTHON_NODE, storage_id

MODEL = "(model)"


LOSS = "(loss)"


RECOMPUTATION = "recomputation"


_PASSED_OVER = PLAIN | {Call}


class ActivationMeter:
    """Measure the bytes that code in the `with` block keeps for its backward pass.

    model: plain or compressed. micro_batches: the number of micro-batches in the block's batch, if they
    run side by side (a Fraction N / b if b does not divide N). constants: tensors that exist anyway, left out.
    detailed: whether to measure by layer and kind, which takes a hook at every module's call. Without
    it, saved_bytes, state_bytes and published_bytes are the same, and by_layer and by_kind stay empty; this is
    cheap enough for every training step.

    Raises UnsupportedLayerError at the end of a block that ran a backward pass: that frees what is to be measured.

    After the block, while the loss is still held:
        saved_bytes: all live storages that autograd or the layers hold, each counted once.
        state_bytes: the part of saved_bytes that modules hold across steps (warm factors).
        published_bytes: the papers' count, the inputs (or factors) of trained convolutions alone.
        by_layer, by_kind: saved_bytes by qualified module name and by class; a storage that two layers
            keep counts for the first. Functional code outside any module is "(loss)".
    A meter can be entered again for every step, and keeps the numbers of the last block until then. Make a new one
    after compress_ or uncompress_, or after replacing parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        micro_batches: int | Fraction = 1,
        constants: Sequence[Tensor] = (),
        *,
        detailed: bool = True,
    ) -> None:
        if micro_batches <= 0:
            raise ValueError(f"micro_batches is {micro_batches}; it must be above 0")
        self.micro_batches = micro_batches
        self.detailed = detailed
        self._constants = tuple(constants)
        self.saved_bytes = 0
        self.state_bytes = 0
        self.published_bytes = 0
        self.by_layer: dict[str, int] = {}
        self.by_kind: dict[str, int] = {}
        self._modules = [(name or MODEL, module) for name, module in model.named_modules()]
        self._model = model
        self._names = {id(module): name for name, module in self._modules}
        self._weights = Weights(self._modules, self._constants)
        self._keepers = Keepers(self._modules)
        self._own = frozenset(map(id, model.parameters()))
        self._clear()

    @property
    def per_micro_batch_bytes(self) -> int:
        """Bytes kept for one full micro-batch: its share of the batch, plus all of the shared state."""
        return ceil((self.saved_bytes - self.state_bytes) / self.micro_batches) + self.state_bytes

    def __enter__(self) -> Self:
        """Start counting."""
        self._clear()
        if self.detailed:
            self._weights.forget()
            self._keepers.forget()
        self._keepers.begin()
        if self.detailed:
            # Hooks on all modules of the process: two registrations instead of two per layer.
            self._handles.append(register_module_forward_pre_hook(self._before))
            self._handles.append(register_module_forward_hook(self._after))
        else:
            self._handles.append(self._model.register_forward_hook(only_looks(partial(self._at_the_end))))
            for module in self._keepers.plain_convolutions():
                self._handles.append(module.register_forward_pre_hook(only_looks(partial(self._count_input))))
        pack = self._pack if self.detailed else _packing(self._held, self._own)
        self._blocks = ExitStack()
        self._blocks.enter_context(saved_tensors_hooks(pack, _unpacking(self._used)))
        self._blocks.enter_context(noted(self._note))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop counting, and add up what is still alive."""
        self._blocks.close()
        for handle in self._handles:
            handle.remove()
        self._visited.clear()  # these would keep dropped parts of the graph alive
        gone = any(used() is None for used in self._used)
        self._add_up()
        self._clear()
        if gone and error is None:
            raise UnsupportedLayerError(
                "a backward ran inside the meter's block, so that what was kept for it is gone: "
                "close the block before loss.backward()"
            )

    def _clear(self) -> None:
        self._stack: list[str] = []
        self._held: list[tuple[ReferenceType[Tensor], str]] = []
        self._used: list[ReferenceType[Tensor]] = []
        self._visited: dict[int, Any] = {}
        self._handles: list[RemovableHandle] = []
        self._published = 0

    def _before(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        name = self._names.get(id(module))
        if name is None:
            return
        self._stack.append(name)
        if is_plain_convolution(module):
            self._count_input(module, args)

    def _after(self, module: nn.Module, _args: Any, output: Any) -> None:
        if id(module) not in self._names:
            return
        for tensor in (output,) if isinstance(output, Tensor) else tensors_in(output):
            if tensor.grad_fn is not None:
                self._walk(tensor.grad_fn)
        if self._stack:
            self._stack.pop()

    def _count_input(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        """Add one call of a plain convolution, that is its input, to the papers' count."""
        if torch.is_grad_enabled() and args and isinstance(args[0], Tensor):
            self._published += args[0].numel() * args[0].element_size()

    def _note(self, kept: Any) -> None:
        """Count what the network's own saved-tensor hooks keep."""
        name = self._stack[-1] if self._stack else MODEL if not self.detailed else LOSS
        self._held.extend((ref(tensor), name) for tensor in tensors_in(kept))

    def _at_the_end(self, _module: nn.Module, _args: Any, output: Any) -> None:
        for tensor in tensors_in(output):
            if tensor.grad_fn is not None:
                self._walk(tensor.grad_fn)

    def _walk(self, node: Any) -> None:
        """Collect the tensors in the contexts of Python autograd functions that were not visited yet."""
        pending = [node]
        while pending:
            node = pending.pop()
            if id(node) in self._visited:
                continue
            self._visited[id(node)] = node
            if isinstance(node, PYTHON_NODE):
                attributes = vars(node)
                if not self.detailed:
                    # A compressed layer's job holds what it saves, which the pack hook sees. The detailed meter
                    # of the first step inspects it too, and tests compare the two.
                    attributes = {k: v for k, v in attributes.items() if type(v) not in _PASSED_OVER}
                for tensor in tensors_in(attributes) if attributes else ():
                    self._held.append((ref(tensor), self._stack[-1] if self._stack else LOSS))
            pending.extend(before for before, _ in node.next_functions if before is not None)

    def _pack(self, tensor: Tensor) -> Tensor:
        # If an operation's own output were returned, it would hold its node and never be freed. This alias
        # belongs to autograd alone, so it lives exactly as long as autograd keeps the storage.
        held = tensor.detach()
        if held.layout is not torch.strided:
            storages_of(held)  # raises now where the storage could not be counted later
        self._held.append((ref(held), self._stack[-1] if self._stack else LOSS))
        return held

    def _add_up(self) -> None:
        counted = self._weights.storages()
        # Side by side, the pending factors are a copy that consecutive micro-batches would not need.
        state: set[int] = set()
        for name, tensor in self._keepers.tensors(side_by_side=self.micro_batches > 1):
            self._held.append((ref(tensor), name))
            state.update(storage_id(storage) for storage in storages_of(tensor))
        self.saved_bytes = self.state_bytes = 0
        self.published_bytes = self._published + self._keepers.published_bytes()
        self.by_layer, self.by_kind = {}, {}
        kinds = self._keepers.kinds if self.detailed else {}
        for held, name in self._held:
            alive = held()
            for storage in () if alive is None else storages_of(alive):
                if (key := storage_id(storage)) not in counted:
                    counted.add(key)
                    self._count(name, kinds.get(name, name), storage.nbytes(), key in state)
        for name, size in self._keepers.recomputed():
            self._count(name, RECOMPUTATION, size, False)

    def _count(self, name: str, kind: str, size: int, is_state: bool) -> None:
        self.saved_bytes += size
        self.state_bytes += size if is_state else 0
        if not self.detailed:
            return
        self.by_layer[name] = self.by_layer.get(name, 0) + size
        self.by_kind[kind] = self.by_kind.get(kind, 0) + size


def _packing(
    held: list[tuple[ReferenceType[Tensor], str]], own: frozenset[int]
) -> Callable[[Tensor], Tensor]:
    """Return the pack hook of the meter without details; `ActivationMeter._pack` says why it returns an alias.

    own: ids of the model's parameters, which are weights and never the output of an operation.
    """
    add = held.append

    def pack(tensor: Tensor) -> Tensor:
        if id(tensor) in own:
            return tensor
        alias = tensor.detach()
        add((ref(alias), MODEL))
        return alias

    return pack


def _unpacking(used: list[ReferenceType[Tensor]]) -> Callable[[Tensor], Tensor]:
    """Return the unpack hook, which records what a backward pass asked for."""

    def unpack(tensor: Tensor) -> Tensor:
        used.append(ref(tensor))
        return tensor

    return unpack
