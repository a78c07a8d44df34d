"""Limits and goals of a plan's time: seconds or joules of a round, the most gradient per second or joule, quickness."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fed_asi.errors import ConfigError
from fed_asi.fleets.pace import RATES
from fed_asi.planning.device_round import DeviceRound

SECONDS, JOULES, MACS = "seconds", "joules", "multiply-accumulates"


@dataclass(frozen=True, slots=True)
class Wishes:
    """Limits and goals of a plan's time. max_seconds, max_joules: of a round; None for no limit.

    objective: one of RATES, or None for the objective of the question. quicker: whether to take the quickest plan of
    almost the same worth, by the clock or, on a device without one, by multiply-accumulates.
    """

    max_seconds: float | None = None
    max_joules: float | None = None
    objective: str | None = None
    quicker: bool = True

    @property
    def limits(self) -> dict[str, float]:
        """The limits of a round, by unit."""
        asked = {SECONDS: self.max_seconds, JOULES: self.max_joules}
        return {unit: most for unit, most in asked.items() if most is not None}

    @property
    def rate(self) -> str | None:
        """The unit that an objective is divided by, such as seconds; None if the objective is no rate."""
        return RATES.get(self.objective or "")


def check_known(round: DeviceRound, wishes: Wishes) -> None:
    """Raise ConfigError if seconds or joules are asked of a device whose rates or power are not known."""
    keys = {SECONDS: ("max_seconds", wishes.max_seconds), JOULES: ("max_joules", wishes.max_joules)}
    for unit, (key, most) in keys.items():
        asked = [f"{key} {most:g}"] if most is not None else []
        asked += [f"objective {wishes.objective!r}"] if wishes.rate == unit else []
        try:
            if asked:
                round.gauge(unit)
        except ConfigError as error:
            raise ConfigError(f"{' and '.join(asked)}: {error}") from error
        if most is not None and not 0.0 < most < math.inf:
            raise ConfigError(f"{key} {most:g}: must be above 0, in {unit} of a round")
