"""Layer classes of torch that several files refer to by name."""

from __future__ import annotations

from typing import Final

from torch import nn

from fed_asi import torch_private

CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BATCH_NORM: Final = torch_private.BATCH_NORM  # the base class of all batch norms, users' own included
# Each output number is computed from one input number.
ACTIVATIONS: Final = (
    nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU,
    nn.ELU, nn.Mish, nn.Softplus,
)  # fmt: skip
