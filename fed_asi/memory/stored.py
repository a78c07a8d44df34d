"""What is frozen, in bytes: weights in flash and the trunk's activations in RAM, in the format a device stores them in.

`float32`, `float16`: every number in that format. `int8`: a weight takes a byte a number and a float32 scale for each
of its rows (output channels); biases are 32-bit integers and what else there is stays float32; an activation of the
trunk takes a byte a number. Scales and zero points of activations, two numbers a layer, are constants of the program,
as are strides and sizes, and are not counted. Of a weight of which only some channels train the rest is stored so, by
rows of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn

from fed_asi.errors import ConfigError, nearest
from fed_asi.layers import slices_of
from fed_asi.layers.slices import Slice

Format = Literal["float32", "float16", "int8"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
NUMBER_BYTES: Final[dict[Format, int]] = {"float32": 4, "float16": 2, "int8": 1}
SCALE_BYTES: Final = 4


def format_of(name: str) -> Format:
    """Return the format of this name. Raises ConfigError for one that is none."""
    for known in FORMATS:
        if name == known:
            return known
    raise ConfigError(f"storage: unknown format {name!r}; {nearest(name, FORMATS)}")


def stored_bytes(tensors: Iterable[Tensor], form: Format) -> int:
    """Return the bytes in flash of frozen parameters and buffers; what is no float32 is stored as it is."""
    return sum(_stored(tensor, form) for tensor in tensors)


def _stored(tensor: Tensor, form: Format) -> int:
    if not tensor.is_floating_point():
        return tensor.nbytes
    if form == "int8" and tensor.dim() < 2:
        return tensor.numel() * NUMBER_BYTES["float32"]
    scales = len(tensor) * SCALE_BYTES if form == "int8" else 0
    return tensor.numel() * NUMBER_BYTES[form] + scales


def rest_bytes(weight: Tensor, part: Slice, form: Format) -> int:
    """Return the bytes in flash of what of a weight is only read. part: what of it trains, in RAM."""
    shape = part.rest(weight).shape_of(weight)
    return _stored(torch.empty(shape, dtype=weight.dtype, device="meta"), form) if shape.numel() else 0


def spared_bytes(model: nn.Module, form: Format) -> int:
    """Return by how much the parameters that a model only reads, or their parts, are smaller in a format."""
    if form == "float32":
        return 0
    parts, spared = slices_of(model), 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            spared += parameter.nbytes - _stored(parameter, form)
        elif name in parts:
            rest = parameter.nbytes - parts[name].bytes_of(parameter)
            spared += rest - rest_bytes(parameter, parts[name], form)
    return spared


def activation_bytes(float32_bytes: int, form: Format) -> int:
    """Return the bytes that an activation of so many bytes in float32 takes in a format."""
    return float32_bytes * NUMBER_BYTES[form] // NUMBER_BYTES["float32"]
