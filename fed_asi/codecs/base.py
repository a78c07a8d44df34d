"""What a codec is: it turns an update's tensors into fewer bytes on the wire, and back.

A codec encodes the change of one tensor at a time, as one array or a few, its pieces. `decode` gives back a finite
tensor of the right shape, or raises UpdateError with the reason, whatever the pieces are.
With error feedback a device keeps what encoding lost, and adds it to what it sends next:

    decode(encode(moved + lost before)) + lost after = moved + lost before

so that over a run the decoded updates sum up to the true changes, less what the device still keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from fed_asi import own_code
from fed_asi.errors import ConfigError, UpdateError, nearest

Pieces = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Piece:
    """The form of one array on the wire: its type and shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return self.dtype.itemsize * prod(self.shape)


@dataclass(frozen=True, slots=True)
class Codec:
    """Base of every codec; its fields are its keys under [upload]. It encodes float32, and float64 as float32.

    error_feedback: whether a device keeps what encoding lost, as large as what it trains.
    """

    name: ClassVar[str] = ""
    whole: ClassVar[bool] = False  # tensors are sent as they are, not encoded
    error_feedback: bool = False

    @property
    def holds(self) -> frozenset[str]:
        """The copies of the trained tensors that a device holds in training: what it started from, what was lost."""
        return frozenset({"start", "residual"} if self.error_feedback else {"start"})

    def pieces(self, shape: tuple[int, ...]) -> dict[str, Piece]:
        """Return the arrays that encode a tensor of this shape, by name; the main one's name is ""."""
        raise NotImplementedError

    def encode(self, moved: Tensor) -> dict[str, Tensor]:
        """Return a tensor's pieces. moved: the change to encode, float32, finite."""
        raise NotImplementedError

    def restored(self, pieces: Pieces, shape: tuple[int, ...]) -> Tensor:
        """Return the float32 tensor that pieces of the right form encode. Raises UpdateError."""
        raise NotImplementedError

    def decode(self, name: str, pieces: Pieces, shape: tuple[int, ...]) -> Tensor:
        """Return the tensor that a device's pieces encode, float32 and finite. Raises UpdateError, with its name."""
        for piece, form in self.pieces(shape).items():
            found = pieces.get(piece)
            where = wire_name(piece, name)
            if found is None:
                raise UpdateError(f"missing tensor {where}")
            if found.layout is not torch.strided or found.device.type != "cpu":
                raise UpdateError(f"{where} is not a plain tensor")
            if found.dtype != form.dtype or found.shape != form.shape:
                is_now = f"{found.dtype} of shape {tuple(found.shape)}"
                raise UpdateError(f"{where} is {is_now}, not {form.dtype} of {form.shape}")
        try:
            moved = self.restored(pieces, shape)
        except UpdateError as error:
            raise UpdateError(f"{name}: {error}") from None
        if not bool(torch.isfinite(moved).all()):
            raise UpdateError(f"{name} holds {'NaN' if bool(torch.isnan(moved).any()) else 'Inf'}")
        return moved


def wire_name(piece: str, name: str) -> str:
    """Return a piece's name on the wire. It has two dots in a row, which no tensor's own name has."""
    return f"{piece}..{name}" if piece else name


FORM = (
    'class Mine(fed_asi.codecs.Codec): a frozen dataclass with name: ClassVar[str] = "mine", def pieces(self, shape), '
    "def encode(self, moved) and def restored(self, pieces, shape)"
)
_Class = TypeVar("_Class", bound=type[Codec])
_CODECS: dict[str, type[Codec]] = {}


_SAID = ("pieces", "encode", "restored")  # what a codec must define, unless it sends tensors whole


def register(cls: _Class) -> _Class:
    """Return the class, now registered as the codec of its name in fleet files.

    Raises ConfigError for one without a name, or that encodes and leaves out a method that this takes.
    """
    if _lacks(cls):
        raise ConfigError(
            f"codec {cls.__name__}: it must be a Codec with a name, pieces(shape), encode(moved) and "
            "restored(pieces, shape)"
        )
    _CODECS[cls.name] = cls
    return cls


def _lacks(cls: type[Codec]) -> str:
    """Return what a codec leaves out; empty if it is complete."""
    missing = [] if cls.whole else [name for name in _SAID if getattr(cls, name) is getattr(Codec, name)]
    return "its name" if not cls.name else next(iter(missing), "")


def names() -> list[str]:
    """Return the names a fleet file may use."""
    return sorted(_CODECS)


def find(name: str) -> type[Codec]:
    """Return the codec of that name. Raises ConfigError, with the nearest ones, for an unknown name."""
    if name in _CODECS:
        return _CODECS[name]
    if not own_code.is_own(name):
        raise ConfigError(f"unknown codec {name!r}; {nearest(name, names())}")
    found: type[Codec] = own_code.load(name)
    own_code.check_class(name, found, Codec, FORM)
    if lacks := _lacks(found):
        raise ConfigError(f"{own_code.shown_name(name)} lacks {lacks}; write it as {FORM}")
    return found
