"""The weights themselves, sent whole: nothing is encoded and nothing is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fed_asi.codecs.base import Codec, register
from fed_asi.errors import ConfigError


@register
@dataclass(frozen=True, slots=True)
class Plain(Codec):
    """Tensors are sent as they are, and a device holds no copy of what it started from."""

    name: ClassVar[str] = "plain"
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.error_feedback:
            raise ConfigError('codec "plain" loses nothing: leave error_feedback out')

    @property
    def holds(self) -> frozenset[str]:
        """Nothing."""
        return frozenset()
