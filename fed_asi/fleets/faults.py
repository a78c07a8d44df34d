"""[faults]: the shares of the devices asked in a round that are lost, late, or over their budget."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from fed_asi.fleets.section import Section

Share = Annotated[float, Field(ge=0, le=1)]


class FaultsConfig(Section):
    """Shares, from 0 to 1, of the devices asked in a round; which ones is drawn from seed, round and device."""

    lost: Share = 0.0  # gone before it answers: "killed"
    late: Share = 0.0  # its answer comes after the round: "timeout"
    over_budget: Share = 0.0  # it has less memory than it said: "out-of-memory"


def problems(faults: FaultsConfig) -> Iterator[str]:
    """Yield what is wrong between well-formed shares, each line beginning with its key."""
    total = faults.lost + faults.late + faults.over_budget
    if total > 1 + 1e-9:
        yield f"lost, late and over_budget are {total:.4g} in all; a device fails in only one way, so at most 1"
