"""Batch norms and activations that the layer before them computes; called in place, they pass their input through.

Where a hook observes a tensor between them, the layer before does not compute them in that forward pass: they
compute their outputs themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from fed_asi.layers.base import LayerState, kind_of, original_class, state_of
from fed_asi.methods import Frozen


@dataclass(slots=True)
class AbsorbedState(LayerState):
    """The state of an absorbed module. owner: the state of the layer that computes it."""

    owner: LayerState | None = None


class _PassThrough:
    """Mixin, placed before the original class: returns its input, or calls the original forward."""

    def forward(self, input: Tensor) -> Tensor:
        module = cast(nn.Module, self)
        state = cast(AbsorbedState, state_of(module))
        if state.owner is None or not state.owner.apart:
            return input
        kind = kind_of(module)
        alone = original_class(module) if kind is None else kind.compressed
        return cast(Tensor, alone.forward(module, input))


class AbsorbedBatchNorm1d(_PassThrough, nn.BatchNorm1d):
    """Computed by the layer before it."""


class AbsorbedBatchNorm2d(_PassThrough, nn.BatchNorm2d):
    """Computed by the layer before it."""


class AbsorbedBatchNorm3d(_PassThrough, nn.BatchNorm3d):
    """Computed by the layer before it."""


class AbsorbedReLU(_PassThrough, nn.ReLU):
    """Computed by the layer before it."""


class AbsorbedReLU6(_PassThrough, nn.ReLU6):
    """Computed by the layer before it."""


class AbsorbedHardtanh(_PassThrough, nn.Hardtanh):
    """Computed by the layer before it."""


class AbsorbedLeakyReLU(_PassThrough, nn.LeakyReLU):
    """Computed by the layer before it."""


_ABSORBED: dict[type[nn.Module], type[nn.Module]] = {
    cls.__mro__[2]: cls
    for cls in (
        AbsorbedBatchNorm1d, AbsorbedBatchNorm2d, AbsorbedBatchNorm3d,
        AbsorbedReLU, AbsorbedReLU6, AbsorbedHardtanh, AbsorbedLeakyReLU,
    )
}  # fmt: skip


def can_absorb(module: nn.Module) -> bool:
    """Return whether the layer before can compute this module."""
    return original_class(module) in _ABSORBED


def absorb_(module: nn.Module, name: str, owner: LayerState) -> None:
    """Let the layer of `owner` compute the module called `name`; `layers.detach_` undoes it."""
    original = original_class(module)
    module.__dict__["_asi"] = AbsorbedState(name, Frozen(), original, owner=owner)
    module.__class__ = _ABSORBED[original]
