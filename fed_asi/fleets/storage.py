"""[storage]: in which format devices store what they only read, the trunk and the weights that they do not train."""

from __future__ import annotations

from typing import Literal

from fed_asi.errors import ConfigError
from fed_asi.fleets.section import Count, Section
from fed_asi.memory.stored import Format


class StorageConfig(Section):
    """The format of all devices, and the public images that the ranges of eight bits are seen on."""

    frozen: Format | Literal["any"] = "float32"  # or "float16", "int8"; "any": chosen before the first round
    calibration_images: Count = 128  # at most so many; "int8" alone

    @property
    def form(self) -> Format:
        """The format. Raises ConfigError where it was not chosen yet."""
        if self.frozen == "any":
            raise ConfigError(
                'storage.frozen: "any" is resolved when a run is prepared, and this run is not prepared'
            )
        return self.frozen
