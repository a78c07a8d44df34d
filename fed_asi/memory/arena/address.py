"""The address of a planned arena: everything that determines a step's operations and their sizes, but no values."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any

from torch import Tensor, fx, nn

from fed_asi.layers import original_class, state_of
from fed_asi.memory.storages import PLAIN
from fed_asi.torch_private import hooks_of

Address = tuple[Hashable, ...]
_EVERY_MODULES = frozenset(nn.Module().__dict__) | {"_asi", "_asi_trained_before"}


class _UnknownError(Exception):
    """Something whose effect on the step cannot be determined."""


def address_of(model: nn.Module, tensors: Sequence[Tensor], *settings: Any) -> Address | None:
    """Return the address of a model's step on tensors of these shapes; None where part of it is unknown.

    Unknown are a hook, an attribute of an unknown class, and a method whose sizes depend on the data.
    """
    try:
        modules = tuple(tuple(_of_module(name, module)) for name, module in model.named_modules())
        return (modules, tuple(_geometry(tensor) for tensor in tensors), _of_value(settings))
    except _UnknownError:
        return None


def _of_module(name: str, module: nn.Module) -> Iterator[Hashable]:
    if hooks_of(module, inputs_too=True):
        raise _UnknownError
    traced = isinstance(module, fx.GraphModule)  # its class is its own; its code identifies it
    yield name
    yield (module.code if isinstance(module, fx.GraphModule) else original_class(module), module.training)
    yield from (
        (key, _geometry(tensor), tensor.requires_grad)
        for tensors in (module._parameters, module._buffers)
        for key, tensor in tensors.items()
        if tensor is not None
    )
    if not traced:
        yield from (
            (key, _of_value(value)) for key, value in module.__dict__.items() if key not in _EVERY_MODULES
        )
    yield from _of_state(module)


def _of_state(module: nn.Module) -> Iterator[Hashable]:
    state = state_of(module)
    if state is None:
        return
    if not state.method.sized:
        raise _UnknownError
    yield from (state.method, state.micro_batch, state.pooled, state.mean is None)
    yield tuple(map(original_class, (*state.fused, *state.watched)))
    yield tuple(None if factor is None else _geometry(factor) for factor in state.factors or ())


def _geometry(tensor: Tensor) -> Hashable:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype


def _of_value(value: Any) -> Hashable:
    """Return a hashable that stands for a setting; a function stands for itself if it has no closure."""
    if type(value) in PLAIN or isinstance(value, type):
        return (type(value), value) if isinstance(value, Hashable) else repr(value)
    if isinstance(value, Tensor):
        return _geometry(value)
    if isinstance(value, partial):
        return (_of_value(value.func), _of_value(value.args), _of_value(value.keywords))
    if isinstance(value, (tuple, list)):
        return tuple(map(_of_value, value))
    if isinstance(value, Mapping):
        return tuple((str(key), _of_value(one)) for key, one in value.items())
    if isinstance(value, FunctionType) and value.__closure__ is None:
        return value
    raise _UnknownError
