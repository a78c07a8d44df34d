"""Bytes that Ray puts into its object store as they are, without pickling them first."""

from __future__ import annotations

from pickle import PickleBuffer
from typing import Any, SupportsIndex

OWN_BUFFER = 5  # the pickle protocol from which a buffer may travel beside the pickle


class Carried(bytes):
    """Bytes that travel beside the pickle of what holds them, and arrive as plain bytes.

    Pickled within it, 45 MB of weights are copied three times more, which takes as long as a third of a training step.
    """

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Return how to make the bytes again; by an old protocol, and in a copy, from a copy."""
        return bytes, (PickleBuffer(self) if int(protocol) >= OWN_BUFFER else bytes(self),)
