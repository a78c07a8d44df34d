"""What a model holds outside autograd: its weights, which are not counted, and tensors kept from step to step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fed_asi.layers import LayerState, original_class, state_of
from fed_asi.memory.storages import is_plain, storages_of, tensors_in
from fed_asi.torch_private import storage_id

_MODULE_ATTRIBUTES = frozenset(nn.Module().__dict__)


GONE = object()  # in place of an attribute that is no more
COUNTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


class Weights:
    """The storages of parameters, buffers and constants; looked up again when one of them has moved."""

    def __init__(self, modules: Sequence[tuple[str, nn.Module]], constants: Sequence[Tensor]) -> None:
        self._modules, self._constants = modules, constants
        self._tensors: list[Tensor] = []
        self._places: list[int] = [-1]
        self._storages: set[int] = set()

    def forget(self) -> None:
        """Discard the lookup, so that the next call looks up everything again."""
        self._places = [-1]

    def storages(self) -> set[int]:
        """Return the ids of the storages, as a new set that the caller may change."""
        if [t.data_ptr() for t in self._tensors if t.layout is torch.strided] != self._places:
            self._tensors = [*self._constants, *self._found()]
            self._places = [t.data_ptr() for t in self._tensors if t.layout is torch.strided]
            self._storages = {storage_id(s) for tensor in self._tensors for s in storages_of(tensor)}
        return set(self._storages)

    def _found(self) -> Iterator[Tensor]:
        for _, module in self._modules:
            for tensor in (*module._parameters.values(), *module._buffers.values()):
                if tensor is not None:
                    yield tensor
            yield from static_tensors(module)


class Keepers:
    """The modules that hold tensors between steps in attributes of their own, such as warm factors."""

    def __init__(self, modules: Sequence[tuple[str, nn.Module]]) -> None:
        self._modules = modules
        self._sizes: list[tuple[dict[str, Any], int]] = []
        self._states: list[tuple[str, nn.Module, LayerState]] = []
        self._others: list[tuple[str, dict[str, Any], str]] = []
        self._plain: list[tuple[dict[str, Any], str]] = []

    @property
    def kinds(self) -> dict[str, str]:
        """The class of every module, by name; for a compressed module, its original class."""
        return {name: original_class(module).__name__ for name, module in self._modules}

    def forget(self) -> None:
        """Discard the lookup, so that the next call looks up everything again."""
        self._sizes = []

    def tensors(self, side_by_side: bool) -> Iterator[tuple[str, Tensor]]:
        """Yield (name of the module, tensor) for every tensor held between steps."""
        self._look()
        for name, _, state in self._states:
            if state.factors is not None or state.pending is not None:
                for tensor in tensors_in([state.factors, None if side_by_side else state.pending]):
                    yield name, tensor
        for name, attributes, key in self._others:
            value = attributes[key]
            if value is not None:
                for tensor in tensors_in(value):
                    yield name, tensor

    def begin(self) -> None:
        """Set the papers' count to zero, for a new block."""
        self._look()
        for _, _, state in self._states:
            state.published_bytes = 0

    def plain_convolutions(self) -> list[nn.Module]:
        """Return the convolutions that train as in plain PyTorch."""
        self._look()
        return [module for _, module in self._modules if is_plain_convolution(module)]

    def published_bytes(self) -> int:
        """Return the papers' count of the compressed convolutions, in bytes, over all calls since `begin`."""
        return sum(
            state.published_bytes
            for _, module, state in self._states
            if isinstance(module, COUNTED) and module.weight.requires_grad
        )

    def recomputed(self) -> Iterator[tuple[str, int]]:
        """Yield (name, bytes) of modules that keep more during the backward pass: gradient checkpointing."""
        for name, module in self._modules[:1]:
            if size := module.__dict__.get("recomputed_bytes", 0):
                yield name, size

    def _look(self) -> None:
        """Look up the modules again if one has an attribute more or less, or a tensor where there was a number."""
        same = self._sizes and all(len(attributes) == size for attributes, size in self._sizes)
        same = same and all(key in attributes for _, attributes, key in self._others)
        if same and all(is_plain(attributes.get(key, GONE)) for attributes, key in self._plain):
            return
        self._sizes = [(module.__dict__, len(module.__dict__)) for _, module in self._modules]
        self._states, self._others, self._plain = [], [], []
        for name, module in self._modules:
            own = not original_class(module).__module__.startswith(
                "torch."
            )  # torch's keep no tensor in a number's place
            for key in module.__dict__.keys() - _MODULE_ATTRIBUTES:
                value = module.__dict__[key]
                if isinstance(value, LayerState):
                    self._states.append((name, module, value))
                elif value is None or not is_plain(value):
                    self._others.append((name, module.__dict__, key))
                elif own:
                    self._plain.append((module.__dict__, key))


def is_plain_convolution(module: nn.Module) -> bool:
    """Return whether the papers count the module's whole input: a trained, uncompressed convolution."""
    weight = getattr(module, "weight", None) if isinstance(module, COUNTED) else None
    return isinstance(weight, Tensor) and weight.requires_grad and state_of(module) is None


def static_tensors(module: nn.Module) -> list[Tensor]:
    """Return the constants that a compressed layer got from calibration; they count as weights.

    They are its fixed mean, and the indices of the channels it keeps.
    """
    state = state_of(module)
    if state is None:
        return []
    places = None if state.slice is None else state.slice.index
    return [tensor for tensor in (state.mean, state.channels, places) if tensor is not None]
