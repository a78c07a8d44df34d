"""What is frozen, in bytes: weights in flash and the trunk's activations in RAM, in the format a device stores them in.

`float32`, `float16`: every number in that format. `int8`: a weight takes a byte a number and a float32 scale for each
of its rows (output channels); biases are 32-bit integers and what else there is stays float32; an activation of the
trunk takes a byte a number. Scales and zero points of activations, two numbers a layer, are constants of the program,
as are strides and sizes, and are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, get_args

from torch import Tensor

from fed_asi.errors import ConfigError, nearest

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


def activation_bytes(float32_bytes: int, form: Format) -> int:
    """Return the bytes that an activation of so many bytes in float32 takes in a format."""
    return float32_bytes * NUMBER_BYTES[form] // NUMBER_BYTES["float32"]
