"""[clock]: what simulated time decides of a round."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fed_asi.fleets.section import Count, Section


class ClockConfig(Section):
    """When a round ends, and whom it asks. Without these keys a round ends with its last reply.

    ask: devices asked where that is more than the cohort; the first `cohort` of them that train count, the others are
    late. fit: a device that cannot do all its steps before the deadline does those it can, and counts for as much.
    at_work: so many devices are at work at any time, and each `cohort` replies that train make an update. staleness:
    one that began s updates ago moves the weights (1 + s)^-staleness of its way.
    """

    deadline_seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None  # simulated, from a round's start
    ask: Count | None = None
    fit: bool = False
    among: Literal["present", "all"] = "present"  # "all": the server does not know who is there
    at_work: Count | None = None
    staleness: Annotated[float, Field(ge=0, le=10)] | None = None  # None: 1/2, as FedBuff has it

    @property
    def power(self) -> float:
        """What staleness is raised to, with its sign changed."""
        return 0.5 if self.staleness is None else self.staleness
