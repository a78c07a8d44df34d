"""What a device's round may take of its time: keys of a group or a device that bind a plan as a budget does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from fed_asi.fleets.section import Section

RATES = {
    "captured-per-second": "seconds",
    "captured-per-joule": "joules",
}  # objectives, and for each of what they are
_Most = Annotated[float, Field(gt=0, le=1e12)]


class PaceKeys(Section):
    """The keys by which a group or a single device says what a round of it may take; None, the default, is the group's.

    quicker: of plans that capture the same to 0.1 % the quickest; None, of a group: where one of the others is given.
    """

    max_seconds: _Most | None = None
    max_joules: _Most | None = None
    quicker: bool | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """What a device's round may take, simulated seconds and joules; whether its plan is the quicker of equal ones."""

    max_seconds: float | None = None
    max_joules: float | None = None
    quicker: bool = False

    @property
    def asks(self) -> bool:
        """Whether a plan's time matters."""
        return self != ANY_PACE


ANY_PACE = Pace()


def pace_of(keys: PaceKeys, group: Pace | None = None) -> Pace:
    """Return what a group's keys say, or a device's; what a device does not say is its group's."""
    group = group or ANY_PACE
    seconds = group.max_seconds if keys.max_seconds is None else keys.max_seconds
    joules = group.max_joules if keys.max_joules is None else keys.max_joules
    limited = group.quicker or keys.max_seconds is not None or keys.max_joules is not None
    return Pace(seconds, joules, limited if keys.quicker is None else keys.quicker)
