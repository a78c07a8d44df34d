"""Bytes of frozen tensors in a device's storage format: weights in flash, and the trunk's activations in RAM.

`float32`, `float16`: every number in that format. `int8`: a weight takes one byte per number and a float32 scale for
each of its rows (output channels); biases are 32-bit integers and other tensors stay float32; an activation of the
trunk takes one byte per number. Scales and zero points of activations, two numbers per layer, are constants of the
program, like strides and sizes, and are not counted. If only some channels of a weight are trained, the rest of it is
stored in this way too, with scales for its own rows.
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
TrainedFormat = Literal["float32", "float16"]  # of what is trained; steps smaller than int8's would be lost
TRAINED_FORMATS: Final[tuple[TrainedFormat, ...]] = get_args(TrainedFormat)
NUMBER_BYTES: Final[dict[Format, int]] = {"float32": 4, "float16": 2, "int8": 1}
SCALE_BYTES: Final = 4


def format_of(name: str) -> Format:
    """Return the format of this name. Raises ConfigError for an unknown one."""
    for known in FORMATS:
        if name == known:
            return known
    raise ConfigError(f"storage: unknown format {name!r}; {nearest(name, FORMATS)}")


def stored_bytes(tensors: Iterable[Tensor], form: Format) -> int:
    """Return the bytes in flash of frozen parameters and buffers; tensors of integers keep their size."""
    return sum(_stored(tensor, form) for tensor in tensors)


def _stored(tensor: Tensor, form: Format) -> int:
    if not tensor.is_floating_point():
        return tensor.nbytes
    if form == "int8" and tensor.dim() < 2:
        return tensor.numel() * NUMBER_BYTES["float32"]
    scales = len(tensor) * SCALE_BYTES if form == "int8" else 0
    return tensor.numel() * NUMBER_BYTES[form] + scales


def rest_bytes(weight: Tensor, part: Slice, form: Format) -> int:
    """Return the bytes in flash of the part of a weight that is only read. part: the trained slice, in RAM."""
    shape = part.rest(weight).shape_of(weight)
    return _stored(torch.empty(shape, dtype=weight.dtype, device="meta"), form) if shape.numel() else 0


def spared_bytes(model: nn.Module, form: Format) -> int:
    """Return how many bytes a format saves on the parameters, or parts of them, that a model only reads."""
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


def trained_bytes(float32_bytes: int, form: TrainedFormat) -> int:
    """Return the bytes that trained weights take in RAM in a format; float32_bytes: their size in float32."""
    return float32_bytes * NUMBER_BYTES[form] // NUMBER_BYTES["float32"]


def activation_bytes(float32_bytes: int, form: Format) -> int:
    """Return the bytes that an activation takes in a format; float32_bytes: its size in float32."""
    return float32_bytes * NUMBER_BYTES[form] // NUMBER_BYTES["float32"]
