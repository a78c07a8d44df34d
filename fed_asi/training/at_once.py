"""Weights that move inside the backward pass: each layer's gradient is applied as soon as it is there, then freed.

Only one layer's gradients are held at a time. Where dW is a product of two thin matrices, it is added to the weight
without being formed. dX of a layer is computed with the weights from before its update, so every gradient of a
micro-batch is that of the same weights. The one difference from a step of all layers is that gradients are clipped by
layer, not over all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fed_asi.layers.base import compressed_layers, slices_of, state_of
from fed_asi.layers.classes import BATCH_NORM, CONVOLUTIONS
from fed_asi.layers.compressed import weight_kind_of
from fed_asi.layers.gradient import Part, WeightGradient
from fed_asi.layers.slices import PartGradient
from fed_asi.training.sgd import Sgd


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that move together: those of a layer and of the batch norm that is computed with it.

    thin: the weight whose gradient is never formed whole, if there is one.
    """

    parameters: tuple[nn.Parameter, ...]
    thin: nn.Parameter | None = None


class AtOnce:
    """Moves the trained parameters of a network, layer by layer, during its backward pass; a Sink of its layers.

    model: compressed as it stays. optimizer: gives parameters, momentum, weight decay and clipping, which is by layer
    here. in_blocks: make what is large at one time in blocks, as a device does; a simulation is quicker without.
    """

    def __init__(self, model: nn.Module, optimizer: Sgd, *, in_blocks: bool = True) -> None:
        self._optimizer, self._in_blocks = optimizer, in_blocks
        self._states = [state for _, _, state in compressed_layers(model)]
        self._names = {id(p): name for name, p in optimizer.parameters}
        self._groups = list(_groups(model, self._names))
        self._group_of = {id(p): group for group in self._groups for p in group.parameters}
        owners = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
        self._shared = {one for one, count in Counter(owners).items() if count > 1}
        self._seen: Counter[int] = Counter()
        self._lr = 0.0
        self.moved: set[int] = set()

    @property
    def largest_bytes(self) -> int:
        """Bytes of the gradients of one layer that are whole at one time: the largest, as of the newest forward."""
        return max(map(self._gradient_bytes, self._groups), default=0)

    @contextmanager
    def moving(self, lr: float) -> Iterator[None]:
        """Move weights at this learning rate in every backward pass inside the block; its forward is inside, too."""
        self.begin(lr)
        handles = [_hook(p, self._gathered) for _, p in self._optimizer.parameters]
        try:
            for state in self._states:
                state.sink = self
            yield
        finally:
            for state in self._states:
                state.sink = None
            for handle in handles:
                handle.remove()

    def begin(self, lr: float) -> None:
        """Begin another micro-batch, at this rate, inside the block."""
        self._lr = lr
        self._seen.clear()

    def see(self, parameters: Sequence[Tensor]) -> None:
        """See Sink."""
        self._seen.update(map(id, parameters))

    def takes(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether these are parameters of the model that are used once; other uses still need the old values."""
        return all(id(p) in self._names for p in parameters) and self._single(parameters)

    def take_(self, parts: Sequence[Part]) -> None:
        """Move the parameters of one layer."""
        with torch.no_grad():
            self._optimizer.clip_([gradient for _, gradient in parts])
            for parameter, gradient in parts:
                name = self._names[id(parameter)]
                if not self._in_blocks and isinstance(gradient, PartGradient):
                    gradient.join_()
                self._optimizer.move_(name, parameter, gradient, self._lr)
                self.moved.add(id(parameter))

    def holds(self, parameter: Tensor, gradient: WeightGradient) -> bool:  # noqa: ARG002 - see Sink
        """Return False: what is not taken here is accumulated by autograd."""
        return False

    def _gradient_bytes(self, group: Group) -> int:
        thin = group.thin if self._single(group.parameters) else None
        whole = [p for p in group.parameters if p is not thin]
        return sum(self._optimizer.trained_bytes(self._names[id(p)], p) for p in whole)

    def _single(self, parameters: Sequence[Tensor]) -> bool:
        return all(self._seen[id(p)] <= 1 and id(p) not in self._shared for p in parameters)

    def _gathered(self, parameter: Tensor) -> None:
        """Move a layer whose gradients autograd accumulates, once all of them are there."""
        parts = [(p, p.grad) for p in self._group_of[id(parameter)].parameters]
        if all(gradient is not None for _, gradient in parts):
            self.take_([(p, gradient) for p, gradient in parts if gradient is not None])
            for p, _ in parts:
                p.grad = None


def at_once(model: nn.Module, **settings: Any) -> AtOnce:
    """Return an object that moves a network's trained parameters within its backward pass; settings as for `Sgd`.

    `fed_asi.arena(..., gradients="applied", mover=at_once)` plans the memory of such a step.
    """
    return AtOnce(model, Sgd(model.named_parameters(), slices=slices_of(model), **settings))


class Parts:
    """Holds the gradients of weights that train in part, in the size of the part; a Sink of their layers.

    Also those of kernels whose map is smaller than they are, of which most is zero.
    found: ids of the parameters that have had a gradient here.
    """

    def __init__(self, model: nn.Module, optimizer: Sgd) -> None:
        self._optimizer = optimizer
        self._names = {id(p): name for name, p in optimizer.parameters if name in optimizer.slices}
        self._states = [
            state
            for _, module, state in compressed_layers(model)
            if state.slice is not None or _has_taps(module)
        ]
        self._all = {id(p): name for name, p in optimizer.parameters}
        self.found: set[int] = set()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take these gradients in every backward pass inside the block, except for layers that already have a sink."""
        free = [state for state in self._states if state.sink is None]
        try:
            for state in free:
                state.sink = self
            yield
        finally:
            for state in free:
                state.sink = None

    def see(self, parameters: Sequence[Tensor]) -> None:
        """See Sink."""

    def takes(self, parameters: Sequence[Tensor]) -> bool:
        """Return whether one of them trains in part; autograd takes gradients of copies itself."""
        return any(id(p) in self._names for p in parameters)

    def take_(self, parts: Sequence[Part]) -> None:
        """Add the gradients to those held."""
        with torch.no_grad():
            for parameter, gradient in parts:
                self.found.add(id(parameter))
                if isinstance(gradient, WeightGradient):
                    self._optimizer.hold_(self._names[id(parameter)], gradient, parameter)
                else:
                    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient

    def holds(self, parameter: Tensor, gradient: WeightGradient) -> bool:
        """See Sink."""
        name = self._all.get(id(parameter))
        if name is None or not self._optimizer.hold_sparse_(name, gradient, parameter):
            return False
        self.found.add(id(parameter))
        return True


class SgdWithParts(Sgd):
    """An `Sgd` that moves all weights at the end of a step; see `PartsHolder` of fed_asi/memory/arena/step.py.

    So a traced step holds of a weight that trains in part what a run's step holds: the gradient of the part.
    """

    _parts: Parts | None = None

    def join_(self, model: nn.Module) -> None:
        """See PartsHolder."""
        self.slices = slices_of(model)
        self._parts = Parts(model, self)

    def begin_(self, *, accumulated: bool) -> None:
        """See PartsHolder."""
        self.drop_gradients_()
        if accumulated:
            self.hold_zeros_()

    def taking(self) -> AbstractContextManager[None]:
        """See PartsHolder."""
        return nullcontext() if self._parts is None else self._parts.taken()

    def held(self) -> dict[str, Tensor]:
        """See PartsHolder."""
        return dict(self._held)


def by_itself(model: nn.Module, trained: Collection[str]) -> str | None:
    """Return the first of these parameters whose gradient no compressed layer computes alone; None if there is none.

    Such are the norms that are not computed with a layer, and weights that two layers share.
    """
    every = list(model.named_parameters(remove_duplicate=False))
    shared = {one for one, count in Counter(id(p) for _, p in every).items() if count > 1}
    inside = {
        id(p)
        for _, module, state in compressed_layers(model)
        if weight_kind_of(module) is not None or isinstance(module, BATCH_NORM)
        for owner in (module, *state.fused)
        for p in owner._parameters.values()
    } - shared
    return next((name for name, p in every if name in trained and id(p) not in inside), None)


def _has_taps(module: nn.Module) -> bool:
    """Return whether the module is a convolution of which some taps may read nothing but padding."""
    return isinstance(module, CONVOLUTIONS) and module.groups == 1 and max(module.kernel_size) > 1


def _groups(model: nn.Module, names: dict[int, str]) -> Iterator[Group]:
    """Yield the trained parameters in groups; a parameter of two modules is in the group of the first."""
    taken: set[int] = set()
    for module in model.modules():
        state = state_of(module)
        owners = (module, *(state.fused if state is not None else ()))
        every = [p for owner in owners for p in owner._parameters.values() if p is not None]
        found = [p for p in every if id(p) in names and id(p) not in taken]
        taken.update(map(id, found))
        if found:
            yield Group(tuple(found), _thin_weight(module, found))


def _thin_weight(module: nn.Module, trained: Sequence[nn.Parameter]) -> nn.Parameter | None:
    """Return the layer's weight if it is trained and its gradient comes as a product of thin matrices; else None."""
    state, kind, weight = state_of(module), weight_kind_of(module), module._parameters.get("weight")
    if state is None or kind is None or weight is None or all(weight is not p for p in trained):
        return None
    return weight if kind.thin_gradient(module, state.method) else None


def _hook(parameter: Tensor, gathered: Callable[[Tensor], None]) -> RemovableHandle:
    handle = parameter.register_post_accumulate_grad_hook(gathered)  # type: ignore[no-untyped-call]
    return cast(RemovableHandle, handle)
