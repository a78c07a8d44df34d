"""torch's classes of layers that several files ask for by name."""

from __future__ import annotations

from typing import Final

from torch import nn

from fed_asi import torch_private

CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BATCH_NORM: Final = torch_private.BATCH_NORM  # the base of them all, and of people's own
