"""What is asked of a plan's time: limits of a round, the most gradient for each second or joule, the quicker plan."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fed_asi.errors import ConfigError
from fed_asi.fleets.pace import RATES
from fed_asi.planning.device_round import DeviceRound

SECONDS, JOULES, MACS = "seconds", "joules", "multiply-accumulates"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is asked of a plan's time. max_seconds, max_joules: of a round; None: no limit.

    objective: of RATES, or None for that of the profile's question. quicker: whether a plan of almost the same worth is
    taken that is quicker, by the clock where the device has one, else by multiply-accumulates.
    """

    max_seconds: float | None = None
    max_joules: float | None = None
    objective: str | None = None
    quicker: bool = True

    @property
    def limits(self) -> dict[str, float]:
        """What limits a round, by its unit."""
        asked = {SECONDS: self.max_seconds, JOULES: self.max_joules}
        return {unit: most for unit, most in asked.items() if most is not None}

    @property
    def rate(self) -> str | None:
        """The unit for each of which the objective is."""
        return RATES.get(self.objective or "")


def check_known(round: DeviceRound, wishes: Wishes) -> None:
    """Raise ConfigError where seconds or joules are asked of a device that does not say what they follow from."""
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
