"""Limits on the time and energy of a device's round: keys that bind a plan as a budget does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fed_asi.fleets.section import Section

RATES = {
    "captured-per-second": "seconds",
    "captured-per-joule": "joules",
}  # objectives, each with what it is measured in
_Most = Annotated[float, Field(gt=0, le=1e12)]


class PaceKeys(Section):
    """The keys that limit a device's round. None, the default, takes the group's value.

    quicker: among plans that capture the same to 0.1 %, take the quickest; None, for a group: if another key is
    given.
    """

    max_seconds: _Most | None = None
    max_joules: _Most | None = None
    quicker: bool | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """Limits on a device's round in simulated seconds and joules; and whether the quicker of equal plans is taken."""

    max_seconds: float | None = None
    max_joules: float | None = None
    quicker: bool = False

    @property
    def asks(self) -> bool:
        """Whether the time of a plan matters."""
        return self != ANY_PACE


ANY_PACE = Pace()


def pace_of(keys: PaceKeys, group: Pace | None = None) -> Pace:
    """Return the limits of a group or a device; a device's missing keys are its group's."""
    group = group or ANY_PACE
    seconds = group.max_seconds if keys.max_seconds is None else keys.max_seconds
    joules = group.max_joules if keys.max_joules is None else keys.max_joules
    limited = group.quicker or keys.max_seconds is not None or keys.max_joules is not None
    return Pace(seconds, joules, limited if keys.quicker is None else keys.quicker)
