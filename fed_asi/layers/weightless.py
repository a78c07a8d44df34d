"""What layers without weights share: the bytes they keep are a floor that no plan can lower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fed_asi.layers.base import LayerKind
from fed_asi.methods import Method


class WeightlessKind(LayerKind):
    """A kind of layer whose exact form is the same under every method."""

    def reason(self, _module: nn.Module) -> str | None:
        """Return why this module must stay uncompressed, or None."""
        return None

    def floor_bytes(self, _module: nn.Module, _shape: Sequence[int], _dtype: torch.dtype) -> int:
        """Return the bytes kept for an input of this shape."""
        return 0

    def unsupported(self, module: nn.Module, method: Method) -> str | None:
        """Return why this module must stay uncompressed, or None."""
        return self.reason(module)

    def saved_bytes(
        self,
        module: nn.Module,
        method: Method,
        input_shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        fused: Sequence[nn.Module] = (),
    ) -> int:
        """Return the bytes kept for an input of this shape."""
        return self.floor_bytes(module, input_shape, dtype)


def needs_gradient(x: Tensor) -> bool:
    """Return whether anything has to be kept for x."""
    return torch.is_grad_enabled() and x.requires_grad


def applied(function: type[torch.autograd.Function], *args: object) -> Tensor:
    """Return the output of an autograd function that has one output."""
    return cast(Tensor, function.apply(*args))  # type: ignore[no-untyped-call]
