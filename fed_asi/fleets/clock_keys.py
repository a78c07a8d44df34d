"""[clock]: what simulated time decides in a round."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fed_asi.fleets.section import Count, Section


class ClockConfig(Section):
    """When a round ends, and whom it asks. Without these keys a round ends with its last reply.

    ask: devices asked, if more than the cohort; the first `cohort` of them that train count, the others are late.
    fit: a device that cannot do all its steps before the deadline does as many as it can, and is weighted by them.
    at_work: this many devices are at work at any time, and every `cohort` replies that train make an update. staleness:
    a device that began s updates ago has its update scaled by (1 + s)^-staleness.
    """

    deadline_seconds: Annotated[float, Field(gt=0, le=1e9)] | None = (
        None  # simulated seconds from the start of a round
    )
    ask: Count | None = None
    fit: bool = False
    among: Literal["present", "all"] = "present"  # "all": the server does not know who is present
    at_work: Count | None = None
    staleness: Annotated[float, Field(ge=0, le=10)] | None = None  # None: 1/2, as in FedBuff

    @property
    def power(self) -> float:
        """The exponent of staleness, with its sign changed."""
        return 0.5 if self.staleness is None else self.staleness
