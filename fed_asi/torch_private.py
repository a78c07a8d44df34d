"""The private parts of torch 2.13 and 2.14 that this package uses: each in one place, with its purpose.

tests/test_torch_private.py fails with the name of whatever moved, and finds uses elsewhere in the package. Exempt are
`module._parameters`, `_buffers` and `_modules`: every nn.Module is made of them, many libraries read them, and this
package uses them wherever it means a module's own tensors.
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

Allocation = tuple[int, int, int]  # nanoseconds, address, bytes (negative for a release)

PYTHON_NODE = (
    BackwardCFunction  # the graph node of a Python autograd function; it holds what the function's ctx holds
)

BATCH_NORM = _BatchNorm  # what all batch norms derive from

DROPOUT = _DropoutNd  # what all dropouts derive from

ConvNd = _ConvNd  # what all convolutions derive from, for type checkers


DispatchMode = TorchDispatchMode  # a block in which every operation below autograd is seen, backward included


def allocations(profiler: Any) -> Iterator[Allocation]:
    """Yield every allocation and release that a finished torch.profiler.profile recorded, unordered.

    The public events sum up the allocations of a block, which loses the order that a peak depends on.
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
    """Return a function that torch.compile does not trace but calls as it is.

    Unlike torch.compiler.disable, this imports the compiler (which takes seconds) only when the function is called.
    """
    return cast(F, _disable_dynamo(function))


def backward_is_running() -> bool:
    """Return whether this thread is inside a backward pass; a forward that runs then is a recomputation."""
    return torch._C._current_graph_task_id() != -1


def has_hooks(module: nn.Module) -> bool:
    """Return whether `hooks_of` gives any, inputs too, which is quicker to say."""
    found = module._forward_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(found or module._forward_pre_hooks)


def hooks_of(module: nn.Module, *, inputs_too: bool) -> list[Callable[..., Any]]:
    """Return the hooks on a module's output and gradients; with inputs_too, its forward pre-hooks as well."""
    found = [module._forward_hooks, module._backward_hooks, module._backward_pre_hooks]
    if inputs_too:
        found.append(module._forward_pre_hooks)
    return [hook for hooks in found for hook in hooks.values()]


def storage_id(storage: torch.UntypedStorage) -> int:
    """Return a number that tensors of one storage share; data_ptr() is 0 for empty and "meta" tensors alike."""
    return cast(int, storage._cdata)


def changes_of(tensor: Tensor) -> int:
    """Return how often a tensor has been changed in place so far, through its views too."""
    return tensor._version


def written_arguments(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the arguments that an operation of torch.ops writes into, as its schema says."""
    named = zip(operation._schema.arguments, args, strict=False)
    values = {argument.name: value for argument, value in named} | dict(kwargs)
    return [values[a.name] for a in operation._schema.arguments if a.is_write and a.name in values]


def arguments_of(operation: Any) -> tuple[list[str], list[str]]:
    """Return ("name: type" of what an operation of torch.ops only reads, names of what it writes into)."""
    arguments = operation._schema.arguments
    return [f"{a.name}: {a.type}" for a in arguments if not a.is_write], [
        a.name for a in arguments if a.is_write
    ]


def sparse_parts(tensor: Tensor) -> list[Tensor]:
    """Return indices and values of a COO tensor as they are; indices() and values() refuse uncoalesced ones."""
    return [tensor._indices(), tensor._values()]


def padding_amounts(conv: nn.Module) -> tuple[int, ...]:
    """Return a convolution's `padding` in the form of torch's pad: amounts, last dimension first."""
    return tuple(cast(_ConvNd, conv)._reversed_padding_repeated_twice)


def check_input_dim(norm: nn.Module, x: Tensor) -> None:
    """Raise torch's own ValueError where a batch norm does not take inputs of this many dimensions."""
    cast(_BatchNorm, norm)._check_input_dim(x)  # type: ignore[no-untyped-call]


def adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Tensor:
    """Return the gradient at the input of adaptive_avg_pool2d; of x only shape, dtype and device matter."""
    return cast(Tensor, torch.ops.aten._adaptive_avg_pool2d_backward(grad, x))


def moved(what: str, error: Exception | str) -> TorchMovedError:
    """Return the error for a private part that this version of torch does not have in the expected form."""
    return TorchMovedError(
        f"torch {torch.__version__} has {what} in another form ({error}): install torch 2.13 or 2.14, which fit"
    )
