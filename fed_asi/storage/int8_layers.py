"""Layers of a trunk in eight bits, each computing the result of integer arithmetic, to the bit on any machine.

Tensors between them are float32 and hold integers: steps of a `Grid`. Sums of their products are integers too, and
exact in any order as long as they stay below 2^24 in float32 (or 2^53 in float64, which a layer uses if its weights
could exceed the first). What remains is one multiplication, one addition and one rounding for each number, each a
separate call so that no compiler fuses two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_asi.storage.grid import Grid, rounded_rows, row_scales

EXACT: Final = 2**24  # integers below are exact in float32


class OfGrid(nn.Module):
    """A layer with an output grid."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def extra_repr(self) -> str:
        """Return everything besides buffers that decides the layer's numbers."""
        return f"scale={self.grid.scale!r}, low={self.grid.low}, high={self.grid.high}"


class Int8Layer(OfGrid, ABC):
    """A layer whose output is on its own grid; subclasses define by `numbers` what is computed before rounding."""

    @abstractmethod
    def numbers(self, *inputs: Tensor) -> Tensor:
        """Return the layer's output in steps of its grid, not yet rounded, as a new tensor."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the layer's output in integer steps of its grid, float32, rounded half to even."""
        return self.numbers(*inputs).round_().clamp_(self.grid.low, self.grid.high).float()


class ToInt8(Int8Layer):
    """Rounds images, (B, C, H, W) float32, to a grid."""

    def numbers(self, *inputs: Tensor) -> Tensor:
        """Return the images in steps of the grid."""
        return inputs[0] / self.grid.scale


class ToFloat32(OfGrid):
    """Turns steps of a grid, (B, ...), into the numbers that they mean."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the numbers, float32."""
        return inputs[0] * self.grid.scale


class Int8Product(Int8Layer):
    """A convolution or linear layer whose weight has 8 bits, its activation, if any, within the grid's ends.

    weight: int8, (rows, ...). multiplier: (rows,), from the accumulator's steps to the grid's. offset: the bias in
    steps of the grid. product: what multiplies an input with a weight.
    """

    weight: Tensor
    multiplier: Tensor
    offset: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear, before: Grid, grid: Grid) -> None:
        super().__init__(grid)
        bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()
        scales = row_scales(layer.weight, bias, before.scale)
        steps = rounded_rows(layer.weight, scales)
        accumulator = scales * before.scale
        self.dtype = torch.float32 if most_sum(steps, before) < EXACT else torch.float64
        multiplier = accumulator / grid.scale
        offset = (bias.double() / accumulator).round() * multiplier
        self.register_buffer("weight", steps)
        self.register_buffer("multiplier", multiplier.to(self.dtype))
        self.register_buffer("offset", offset.to(self.dtype))
        self.settings = _settings(layer)

    def extra_repr(self) -> str:
        """Return the grid, and how the weight is used."""
        return f"{super().extra_repr()}, {self.settings}, {self.dtype}"

    def accumulated(self, steps: Tensor) -> Tensor:
        """Return the exact sums of integer products, (B, rows, ...)."""
        weight, x = self.weight.to(self.dtype), steps.to(self.dtype)
        return F.conv2d(x, weight, **self.settings) if self.weight.dim() == 4 else F.linear(x, weight)

    def numbers(self, *inputs: Tensor) -> Tensor:
        """Return the layer's output in steps of its grid."""
        sums = self.accumulated(inputs[0])
        shape = (-1, 1, 1) if self.weight.dim() == 4 else (-1,)
        return sums.mul_(self.multiplier.view(shape)).add_(self.offset.view(shape))


def most_sum(steps: Tensor, before: Grid) -> int:
    """Return an upper bound on every partial sum of a weight's products with numbers of a grid."""
    return int(steps.double().abs().flatten(1).sum(1).max()) * before.most


def _settings(layer: nn.Conv2d | nn.Linear) -> dict[str, Any]:
    if isinstance(layer, nn.Linear):
        return {}
    names = ("stride", "padding", "dilation", "groups")
    return {name: getattr(layer, name) for name in names}


class Int8Sum(Int8Layer):
    """The sum of tensors on grids of their own, an activation within the grid's ends."""

    def __init__(self, befores: Sequence[Grid], grid: Grid) -> None:
        super().__init__(grid)
        self.multipliers = [before.scale / grid.scale for before in befores]

    def extra_repr(self) -> str:
        """Return the grid, and how wide a step of each input is in it."""
        return f"{super().extra_repr()}, multipliers={self.multipliers!r}"

    def parts(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the inputs in steps of the layer's grid."""
        return [steps * multiplier for steps, multiplier in zip(inputs, self.multipliers, strict=True)]

    def numbers(self, *inputs: Tensor) -> Tensor:
        """Return the sum in steps of the grid."""
        first, *others = self.parts(inputs)
        for part in others:
            first = first + part
        return first


class Int8Joined(Int8Sum):
    """Tensors on grids of their own, concatenated."""

    def __init__(self, befores: Sequence[Grid], grid: Grid, dim: int) -> None:
        super().__init__(befores, grid)
        self.dim = dim

    def extra_repr(self) -> str:
        """Return the grid, the inputs' steps, and along which dimension they are joined."""
        return f"{super().extra_repr()}, dim={self.dim}"

    def numbers(self, *inputs: Tensor) -> Tensor:
        """Return the concatenated tensors in steps of the grid."""
        return torch.cat(self.parts(inputs), self.dim)


class Int8Times(Int8Layer):
    """The elementwise product of two tensors on grids of their own."""

    def __init__(self, a: Grid, b: Grid, grid: Grid) -> None:
        super().__init__(grid)
        self.multiplier = a.scale * b.scale / grid.scale

    def extra_repr(self) -> str:
        """Return the grid, and how wide a step of the product is in it."""
        return f"{super().extra_repr()}, multiplier={self.multiplier!r}"

    def numbers(self, *inputs: Tensor) -> Tensor:
        """Return the product in steps of the grid."""
        a, b = inputs
        return (a * b).mul_(self.multiplier)


class Int8Table(Int8Layer):
    """A function of one number as a lookup table with 256 entries."""

    table: Tensor

    def __init__(self, function: Callable[[Tensor], Tensor], before: Grid, grid: Grid) -> None:
        super().__init__(grid)
        self.first = before.low
        numbers = torch.arange(before.low, before.high + 1, dtype=torch.float64) * before.scale
        self.register_buffer("table", function(numbers) / grid.scale)

    def numbers(self, *inputs: Tensor) -> Tensor:
        """Return the function's value for every number, in steps of the grid."""
        return self.table[(inputs[0] - self.first).long()]


class Int8Pool(Int8Layer):
    """A mean over places, with one grid for input and output; sums are integers, so only the mean is rounded."""

    def __init__(self, pool: Callable[[Tensor], Tensor], grid: Grid) -> None:
        super().__init__(grid)
        self.pool = pool

    def numbers(self, *inputs: Tensor) -> Tensor:
        """Return the means in steps of the grid."""
        return self.pool(inputs[0].double())
