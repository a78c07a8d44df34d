"""[storage]: how devices store what they only read, the trunk and untrained weights, and how the trunk runs."""

from __future__ import annotations

from typing import Literal

from fed_asi.compression.by_channels import TrunkBy
from fed_asi.errors import ConfigError
from fed_asi.fleets.section import Count, Section
from fed_asi.memory.stored import Format, TrainedFormat


class StorageConfig(Section):
    """The format on all devices, the public images from which ranges for eight bits are found, and how trunks run."""

    frozen: Format | Literal["any"] = "float32"  # or "float16", "int8"; "any": chosen before the first round
    calibration_images: Count = 128  # the most images; for "int8" only
    trained: TrainedFormat = "float32"  # or "float16": in RAM, each move rounded at random
    trunk_by: TrunkBy = "layer"  # or "channel": depthwise convolutions never have input and output whole

    @property
    def form(self) -> Format:
        """The format. Raises ConfigError where it has not been chosen yet."""
        if self.frozen == "any":
            raise ConfigError(
                'storage.frozen: "any" is resolved when a run is prepared, and this run is not prepared'
            )
        return self.frozen
