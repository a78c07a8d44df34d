"""[storage]: in which format devices store what is frozen, the trunk and the weights that no device trains."""

from __future__ import annotations

from fed_asi.fleets.section import Count, Section
from fed_asi.memory.stored import Format


class StorageConfig(Section):
    """The format of all devices, and the public images that the ranges of eight bits are seen on."""

    frozen: Format = "float32"  # or "float16", "int8"
    calibration_images: Count = 128  # at most so many; "int8" alone
