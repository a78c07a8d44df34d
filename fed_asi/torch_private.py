"""What is used of torch 2.13 that it does not publish: each thing once, with what it is for.

tests/test_torch_private.py fails by the name of what moved, and finds uses elsewhere in the package. Not here are
`module._parameters`, `_buffers` and `_modules`: every nn.Module is made of them, half of what builds on torch
reads them, and they are used where a module's own tensors are meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch._compile import _disable_dynamo
from torch.autograd.function import BackwardCFunction
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._python_dispatch import TorchDispatchMode

from fed_asi.errors import TorchMovedError

F = TypeVar("F", bound=Callable[..., Any])

Allocation = tuple[int, int, int]  # nanoseconds, address, bytes: negative where they are given back

PYTHON_NODE = (
    BackwardCFunction  # a graph's node of a Python autograd function, which holds what that one's ctx has
)

BATCH_NORM = _BatchNorm  # what all batch norms derive from

DROPOUT = _DropoutNd  # what all dropouts derive from

ConvNd = _ConvNd  # what all convolutions derive from, for type checkers


DispatchMode = TorchDispatchMode  # a block in which every operation below autograd is seen, backward included


def allocations(profiler: Any) -> Iterator[Allocation]:
    """Yield every allocation and release that a finished torch.profiler.profile has seen, in no order.

    The published events add a block's allocations up, and so lose the order that a peak depends on.
    """
    try:
        yield from _allocations(profiler.profiler.kineto_results.experimental_event_tree())
    except AttributeError as error:
        raise moved("the profiler's events", error) from error


def _allocations(events: Any) -> Iterator[Allocation]:
    for event in events:
        if event.tag.name == "Allocation":
            yield event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size
        yield from _allocations(event.children)


def outside_graphs(function: F) -> F:
    """Return a function that torch.compile leaves out of its graphs and calls as it is.

    Unlike torch.compiler.disable this imports the compiler, which takes seconds, only when it is called.
    """
    return cast(F, _disable_dynamo(function))


def backward_is_running() -> bool:
    """Return whether this thread is in a backward; what runs forward then repeats an earlier forward."""
    return torch._C._current_graph_task_id() != -1


def has_hooks(module: nn.Module) -> bool:
    """Return whether `hooks_of` gives any, inputs too, which is quicker to say."""
    found = module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(found or module._forward_pre_hooks)


def hooks_of(module: nn.Module, *, inputs_too: bool) -> list[Callable[..., Any]]:
    """Return the hooks on a module's output and gradients; with inputs_too, those before its forward as well."""
    found = [module._forward_hooks, module._backward_hooks, module._backward_pre_hooks]
    if inputs_too:
        found.append(module._forward_pre_hooks)
    return [hook for hooks in found for hook in hooks.values()]


def storage_id(storage: torch.UntypedStorage) -> int:
    """Return a number that tensors of one storage share; data_ptr() is 0 for all that are empty or on "meta"."""
    return cast(int, storage._cdata)


def changes_of(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place so far, views of it included."""
    return tensor._version


def written_arguments(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the arguments that an operation of torch.ops writes into, as its schema says."""
    named = zip(operation._schema.arguments, args, strict=False)
    values = {argument.name: value for argument, value in named} | dict(kwargs)
    return [values[a.name] for a in operation._schema.arguments if a.is_write and a.name in values]


def arguments_of(operation: Any) -> tuple[list[str], list[str]]:
    """Return ("name: type" of arguments that an operation of torch.ops reads alone, names of those it writes into)."""
    arguments = operation._schema.arguments
    return [f"{a.name}: {a.type}" for a in arguments if not a.is_write], [
        a.name for a in arguments if a.is_write
    ]


def sparse_parts(tensor: Tensor) -> list[Tensor]:
    """Return indices and values of a COO tensor as they are; indices() and values() refuse uncoalesced ones."""
    return [tensor._indices(), tensor._values()]


def padding_amounts(conv: nn.Module) -> tuple[int, ...]:
    """Return the amounts for torch's pad, last dimension first, that a convolution's `padding` comes to."""
    return tuple(cast(_ConvNd, conv)._reversed_padding_repeated_twice)


def check_input_dim(norm: nn.Module, x: Tensor) -> None:
    """Raise ValueError where a batch norm takes no input of so many dimensions, in torch's own words."""
    cast(_BatchNorm, norm)._check_input_dim(x)  # type: ignore[no-untyped-call]


def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient at the input of adaptive_avg_pool2d; of x only shape, dtype and device matter."""
    return cast(Tensor, torch.ops.aten._adaptive_avg_pool2d_backward(grad, x))


def moved(what: str, error: Exception | str) -> TorchMovedError:
    """Return the error of a part that is not where this version of torch has it."""
    return TorchMovedError(
        f"torch {torch.__version__} has {what} in another form ({error}): install torch 2.13, which fed_asi fits"
    )
