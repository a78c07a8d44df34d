"""What a strategy adds to a device's plain local SGD, and makes it keep.

A device's optimizer calls it twice in every step: before gradients are clipped (a term of the objective) and before
they move a weight (a correction). After the last step it says what to send besides the weights, and what to keep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AtDevice:
    """What a device has when its round begins, by the names of the tensors it trains.

    start: the weights it was sent. sent: tensors of the strategy that came with them, and kept: those kept after its
    last round, both by kind. lost: it had kept some, and they are gone. lr: of every step of the round.
    """

    start: Mapping[str, Tensor]
    lr: float
    sent: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    kept: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    lost: bool = False

    def on(self, device: torch.device) -> AtDevice:
        """Return the same on the device where its steps compute."""
        sent, kept = (by_kind_on(one, device) for one in (self.sent, self.kept))
        return replace(self, start=named_on(self.start, device), sent=sent, kept=kept)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a round leaves on a device, by kind and name: to send with the weights, and to keep until its next."""

    extra: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    kept: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)

    def on(self, device: torch.device) -> Finished:
        """Return the same on a device."""
        return Finished(by_kind_on(self.extra, device), by_kind_on(self.kept, device))


def named_on(named: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return named tensors on a device; those already there are not copied."""
    return {name: tensor.to(device) for name, tensor in named.items()}


def by_kind_on(
    by_kind: Mapping[str, Mapping[str, Tensor]], device: torch.device
) -> dict[str, dict[str, Tensor]]:
    """Return named tensors, by kind, on a device; those already there are not copied."""
    return {kind: named_on(named, device) for kind, named in by_kind.items()}


class Local:
    """Plain local SGD: nothing is added, kept or sent. Base of what other strategies add."""

    def __init__(self, given: AtDevice) -> None:
        self.given = given

    def held(self) -> dict[str, Mapping[str, Tensor]]:
        """Return the copies that are held besides the weights during training, by kind."""
        return {}

    def objective_(self, name: str, weight: Tensor, gradient: Tensor) -> None:
        """Add the gradient of the strategy's objective to a weight's gradient, before clipping."""

    def direction(self, name: str, gradient: Tensor) -> Tensor:
        """Return the direction against which a weight moves, from its clipped and decayed gradient."""
        return gradient

    def finish(self, end: Mapping[str, Tensor], steps: int) -> Finished:
        """Return what is to be sent and kept after the last step. end: the final weights."""
        return Finished()
