"""The 8-bit form of each node of a frozen trunk, or the reason why it has none."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fed_asi.layers.classes import ACTIVATIONS, BATCH_NORM
from fed_asi.storage.grid import Grid
from fed_asi.storage.int8_layers import (
    Int8Joined,
    Int8Layer,
    Int8Pool,
    Int8Product,
    Int8Sum,
    Int8Table,
    Int8Times,
)

Make = Callable[[Sequence[Grid], Grid], Int8Layer]


@dataclass(frozen=True, slots=True)
class Step:
    """The 8-bit form of a node. make: its layer, from the grids of its inputs and its own; None: it stays as it is.

    same_grid: its output is on the grid of its input, so it needs no range of its own.
    """

    make: Make | None
    same_grid: bool = False


# Activations that clip: the ends of a grid do the same, if its range was recorded after them.
CLIPPED: Final = (nn.ReLU, nn.ReLU6)
CLIPPED_CALLS: Final = {F.relu, F.relu6, torch.relu, torch.relu_, "relu", "relu_"}
CALLS_OF_ONE_NUMBER: Final = CLIPPED_CALLS | {
    F.hardtanh, F.hardswish, F.hardsigmoid, F.silu, F.gelu, F.leaky_relu, F.elu, F.mish, F.softplus, torch.sigmoid,
    torch.tanh, torch.clamp, "sigmoid", "tanh", "clamp",
}  # fmt: skip
ARITHMETIC: Final = {operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.mul}
SUMS: Final = {operator.add, operator.iadd, torch.add}
PRODUCTS: Final = {operator.mul, operator.imul, torch.mul}
JOINS: Final = {torch.cat, torch.concat}
POOLS: Final = (nn.AvgPool2d, nn.AdaptiveAvgPool2d)
POOL_CALLS: Final = {F.avg_pool2d, F.adaptive_avg_pool2d, torch.mean, "mean"}
UNCHANGED: Final = (
    nn.MaxPool2d, nn.Identity, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.ChannelShuffle, nn.Unflatten,
)  # fmt: skip
UNCHANGED_CALLS: Final = {
    F.max_pool2d, torch.flatten, "flatten", "view", "reshape", "contiguous", "permute", "transpose",
}  # fmt: skip
UNCHANGED_NAMES: Final = {"StochasticDepth"}  # of torchvision, which is not imported just for this


class Called(nn.Module):
    """A function or method of a node, applied to one tensor with the node's other arguments."""

    def __init__(self, node: fx.Node) -> None:
        super().__init__()
        self.target, self.method = node.target, node.op == "call_method"
        self.rest, self.named = node.args[1:], dict(node.kwargs)

    def extra_repr(self) -> str:
        """Return what is called, and with what."""
        name = self.target if isinstance(self.target, str) else getattr(self.target, "__name__", "?")
        return f"{name}, {self.rest}, {self.named}"

    def forward(self, x: Tensor) -> Tensor:
        """Return what the call gives."""
        call: Any = getattr(x, str(self.target)) if self.method else self.target
        found: Tensor = call(*self.rest, **self.named) if self.method else call(x, *self.rest, **self.named)
        return found


def step_of(node: fx.Node, module: nn.Module | None) -> Step | str:
    """Return the 8-bit form of a node, or why it has none.

    module: that of a node which calls a module.
    """
    if node.op == "call_module" and module is not None:
        return _of_module(module)
    inputs: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), inputs.append)
    if node.op in {"call_function", "call_method"} and inputs:
        return _of_call(node, inputs)
    return f"{_called(node)} has no 8-bit form"


def ends_a_grid(node: fx.Node, module: nn.Module | None) -> bool:
    """Return whether a node is an activation that does the same as clipping to the ends of a grid."""
    if node.op == "call_module":
        return type(module) in CLIPPED
    return node.target in CLIPPED_CALLS


def function_of(node: fx.Node, module: nn.Module | None) -> nn.Module:
    """Return a node's function of one tensor as a module."""
    return Called(node) if module is None else module


def _of_module(module: nn.Module) -> Step | str:
    for kinds, made in MODULES:
        if isinstance(module, kinds):
            return made(module)
    if type(module).__name__ in UNCHANGED_NAMES:
        return Step(None, same_grid=True)
    return f"{type(module).__name__} has no form in 8 bits"


def _product(layer: Any) -> Step | str:
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        return f"it pads by {layer.padding_mode!r}, and only zeros have a form in 8 bits"
    if not all(bool(parameter.isfinite().all()) for parameter in layer.parameters()):
        return "its weights hold numbers that are not finite"
    return Step(lambda befores, grid: Int8Product(layer, befores[0], grid))


def _norm(norm: Any) -> Step | str:
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
        return f"{type(norm).__name__} has a form in 8 bits after a convolution, or as a BatchNorm2d with statistics"
    return _product(as_convolution(norm))


def _pool(pool: Callable[[Tensor], Tensor]) -> Step:
    return Step(lambda _, grid: Int8Pool(pool, grid), same_grid=True)


def _table(function: Callable[[Tensor], Tensor]) -> Step:
    return Step(lambda befores, grid: Int8Table(function, befores[0], grid))


MODULES: Final[tuple[tuple[Any, Callable[[Any], Step | str]], ...]] = (
    ((nn.Conv2d, nn.Linear), _product),
    (BATCH_NORM, _norm),
    (UNCHANGED, lambda _: Step(None, same_grid=True)),
    (POOLS, _pool),
    (ACTIVATIONS, _table),
)


def _of_call(node: fx.Node, inputs: Sequence[fx.Node]) -> Step | str:
    single = len(inputs) == 1 and node.args[:1] == (inputs[0],)
    found = _of_one(node) if single else _of_several(node, inputs)
    return found or f"{_called(node)} has no form in 8 bits"


def _of_one(node: fx.Node) -> Step | None:
    if node.target in UNCHANGED_CALLS:
        return Step(None, same_grid=True)
    if node.target in POOL_CALLS:
        return _pool(Called(node))
    known = node.target in CALLS_OF_ONE_NUMBER or node.target in ARITHMETIC
    return _table(Called(node)) if known else None


def _of_several(node: fx.Node, inputs: Sequence[fx.Node]) -> Step | None:
    pair = len(inputs) == 2 and not node.kwargs and node.args == tuple(inputs)
    if pair and node.target in SUMS:
        return Step(Int8Sum)
    if pair and node.target in PRODUCTS:
        return Step(lambda befores, grid: Int8Times(befores[0], befores[1], grid))
    joined = node.args[0] if node.args else None
    if node.target in JOINS and isinstance(joined, (list, tuple)) and list(joined) == list(inputs):
        dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
        return Step(lambda befores, grid: Int8Joined(befores, grid, int(str(dim))))
    return None


def _called(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "it")


def as_convolution(norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return the 1x1 depthwise convolution that equals a batch norm with fixed statistics."""
    channels, mean, variance = norm.num_features, norm.running_mean, norm.running_var
    layer = nn.Conv2d(channels, channels, 1, groups=channels)
    scale = torch.ones(channels) if norm.weight is None else norm.weight.detach()
    shift = torch.zeros(channels) if norm.bias is None else norm.bias.detach()
    if mean is None or variance is None:
        raise ValueError("the batch norm has no statistics")
    scale = scale / torch.sqrt(variance + norm.eps)
    with torch.no_grad():
        layer.weight.copy_(scale.view(channels, 1, 1, 1))
        layer.bias.copy_(shift - mean * scale)  # type: ignore[union-attr]
    return layer
