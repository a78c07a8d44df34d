"""The state of a run after a round: all that its next round depends on, and all that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Begun:
    """A device that is at work while an update is made.

    round: of its job: it began with the weights of the round before. began: when, on the run's clock. check: its job's.
    """

    partition_id: int
    round: int
    began: float
    check: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """The state of a run after a round. factors_round: of what each device keeps, by partition id; 0: nothing.

    strategy: the strategy's state. For buffered rounds only: begun: devices at work. older: the states that those began
    from, by round. draws: how often devices have been drawn.
    """

    round: int
    tensors: dict[str, Tensor]
    factors_round: Mapping[int, int] = field(default_factory=dict)
    strategy: Mapping[str, Tensor] = field(default_factory=dict)
    begun: tuple[Begun, ...] = ()
    older: Mapping[int, State] = field(default_factory=dict)
    draws: int = 0
