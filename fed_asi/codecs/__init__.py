"""How a device's update is encoded for its upload, one file a codec; new files are found by themselves.

`base.py` says what a codec is.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from fed_asi.codecs.base import Codec, Piece, Pieces, find, names, register

for _module in iter_modules(__path__):  # so that a new codec is a new file and no more
    import_module(f"{__name__}.{_module.name}")

__all__ = ["Codec", "Piece", "Pieces", "find", "names", "register"]
