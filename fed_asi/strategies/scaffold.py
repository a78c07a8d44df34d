"""SCAFFOLD: control variates correct the drift of each device's local steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fed_asi.strategies.aggregate import Weights
from fed_asi.strategies.base import (
    Combined,
    Conditions,
    Round,
    State,
    Strategy,
    extra_name,
    register,
    rounded,
)
from fed_asi.strategies.local import AtDevice, Finished, Local
from fed_asi.strategies.places import Places, whole_of

VARIATE = "variate"


class Corrected(Local):
    """Local SGD in which every step moves against g - c_own + c, and which then updates its own variate (option II).

    A device that has lost its variate uses the server's: it trains uncorrected in that round.
    """

    def __init__(self, given: AtDevice) -> None:
        super().__init__(given)
        zeros = {name: torch.zeros_like(tensor) for name, tensor in given.start.items()}
        self._server = zeros | dict(given.sent.get(VARIATE, {}))
        own = {name: tensor for name, tensor in given.kept.get(VARIATE, {}).items() if name in zeros}
        self._own = (self._server if given.lost else zeros) | own

    def held(self) -> dict[str, Mapping[str, Tensor]]:
        """Return both variates, and the weights it was sent, which its new variate depends on."""
        return {"start": self.given.start, "server variate": self._server, VARIATE: self._own}

    def direction(self, name: str, gradient: Tensor) -> Tensor:
        """Return the corrected gradient."""
        return gradient.add(self._server[name] - self._own[name])

    def finish(self, end: Mapping[str, Tensor], steps: int) -> Finished:
        """Return the change of its variate, to send, and the variate, to keep."""
        moved, kept = {}, {}
        for name, start in self.given.start.items():
            moved[name] = (start - end[name]) / (steps * self.given.lr) - self._server[name]
            kept[name] = self._own[name] + moved[name]
        others = {name: one for name, one in self.given.kept.get(VARIATE, {}).items() if name not in kept}
        return Finished({VARIATE: moved}, {VARIATE: others | kept})


@register
@dataclass(frozen=True, slots=True)
class Scaffold(Strategy):
    """x + server_lr * mean of (y_k - x) over the devices that trained a tensor; c is the mean of their variates.

    The variates' sum over all devices is the state; c divides it by how many devices train the tensor: all, or, where
    only a share of the devices seen so far did, that share of them. Dividing by all would make the correction
    shrink a tensor's steps by that share. Devices count alike, as in the paper.
    Source: Karimireddy et al. 2020 (arXiv 1910.06378), algorithm 1, option II.
    """

    name: ClassVar[str] = "scaffold"
    in_steps: ClassVar[bool] = True
    holds: ClassVar[frozenset[str]] = frozenset({"start", "server variate", VARIATE})
    extras: ClassVar[tuple[str, ...]] = (VARIATE,)
    weighs: ClassVar[bool] = False
    when_lost: ClassVar[str] = (
        "it took the server's control variate for its own, trained uncorrected in that round, and the mean of the "
        "variates is off by a share of what was lost from then on"
    )
    server_lr: Annotated[float, Field(gt=0)] = 1.0

    def problems(self, run: Conditions) -> Iterator[str]:
        """Yield also that momentum changes the meaning of a device's variate."""
        yield from Strategy.problems(self, run)
        if run.momentum > 0.0:
            yield (
                f'train.momentum: {run.momentum:g}, but "scaffold" finds a device\'s gradient from how far plain '
                "SGD moved it; use 0"
            )

    def combine(self, given: Round, state: State) -> Combined:
        """Return the means, and as state the sum of the variates and who was seen, as "sum:NAME" and "seen:NAME"."""
        after = dict(state)
        everyone = _seen(state, "", given.devices)
        for name, tensor in given.tensors.items():
            who = [update for update in given.updates if name in update.tensors]
            if not who:
                continue
            total = state.get(f"sum:{name}", torch.zeros(tensor.shape, dtype=torch.float64)).clone()
            seen = _seen(state, name, given.devices)
            for update in who:
                total += whole_of(update, name, tensor, extra_name(VARIATE, name))
                seen[update.partition_id] = everyone[update.partition_id] = True
            after |= {f"sum:{name}": total, f"seen:{name}": seen}
        state = {**after, "devices": torch.tensor(given.devices), "seen:": everyone}
        return Combined(given.combined(self._moved), state)

    def _moved(self, places: Places, now: Tensor) -> Tensor:
        moved = torch.zeros_like(now)
        for *_, trained in places.said:
            moved += trained.to(torch.float64) - now
        return now + self.server_lr * moved / len(places.said)

    def sent(self, state: State, tensors: Weights) -> dict[str, Tensor]:
        """Return c for every tensor that some device has trained so far."""
        found = {}
        for name, tensor in tensors.items():
            if f"sum:{name}" in state:
                share = float(state[f"seen:{name}"].sum()) / float(state["seen:"].sum())
                mean = state[f"sum:{name}"] / (share * int(state["devices"]))
                found[extra_name(VARIATE, name)] = rounded(mean, tensor)
        return found

    def at_device(self, given: AtDevice) -> Local:
        """Return local SGD corrected by both variates."""
        return Corrected(given)


def _seen(state: State, name: str, devices: int) -> Tensor:
    """Return which devices have trained a tensor so far, or any tensor; (devices,)."""
    return state.get(f"seen:{name}", torch.zeros(devices, dtype=torch.bool)).clone()
