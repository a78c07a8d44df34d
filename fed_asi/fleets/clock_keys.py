"""[clock]: what simulated time decides of a round."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fed_asi.fleets.section import Count, Section


class ClockConfig(Section):
    """When a round ends, and whom it asks. Without these keys a round ends with its last reply.

    ask: devices asked where that is more than the cohort; the first `cohort` of them that train count, the others are
    late. fit: a device that cannot do all its steps before the deadline does those it can, and counts for as much.
    """

    deadline_seconds: Annotated[float, Field(gt=0, le=1e9)] | None = None  # simulated, from a round's start
    ask: Count | None = None
    fit: bool = False
    among: Literal["present", "all"] = "present"  # "all": the server does not know who is there
