"""How a device's round ends by the clock: whether it replies, and when, or why not.

This is a pure function of what the device spends, when it leaves, the charge of its battery, and the deadline. It is
known before anything is computed, so nothing is computed in vain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fed_asi.devices.job import Job
from fed_asi.fleets.clock import Spent


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a device's round. start, leaves: on the run's clock. deadline, battery: in seconds and joules.

    absent: why the device cannot be asked when the round begins; None: it can.
    """

    start: float
    deadline: float = math.inf
    leaves: float = math.inf
    battery: float = math.inf
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """How a device's round ends by the clock.

    outcome: None if it replies. ends: when it replies, or when it is known that it will not. spent: until then; None
    without a clock.
    """

    job: Job
    spent: Spent | None
    ends: float
    outcome: Literal["late", "left", "absent"] | None = None
    cause: str | None = None


def fate(job: Job, spent: Spent | None, limits: Limits) -> Fate:
    """Return what becomes of a job that would take `spent` from its start to its reply."""
    if spent is None:
        return Fate(job, None, limits.start)
    if limits.absent is not None:
        after = limits.deadline if math.isfinite(limits.deadline) else 0.0
        return Fate(job, spent.until(0.0), limits.start + after, "absent", limits.absent)
    whole = spent.sim_seconds
    stays, empty = limits.leaves - limits.start, spent.lasts(limits.battery)
    gone = min(stays, empty)
    if whole <= gone and whole <= limits.deadline:
        return Fate(job, spent, limits.start + whole)
    if limits.deadline <= gone:
        why = f"it needs {_seconds(whole)}, and the deadline is {_seconds(limits.deadline)}"
        return Fate(job, spent.until(limits.deadline), limits.start + limits.deadline, "late", why)
    early = gone < spent.download_seconds
    why = "its battery was empty" if empty <= stays else "it left"
    why = f"{why} after {_seconds(gone)} of {_seconds(whole)}" + (
        ", before it had the model" if early else ""
    )
    return Fate(job, spent.until(gone), limits.start + gone, "absent" if early else "left", why)


def cut_off(found: Fate, start: float, end: float, replies: int) -> Fate:
    """Return the fate of a device when the round ends without it, after a number of replies."""
    if found.spent is None or (found.outcome is not None and found.ends <= end):
        return found
    if found.outcome == "absent":
        return Fate(found.job, found.spent, end, "absent", found.cause)
    why = f"the round ended after {_seconds(end - start)} with {replies} replies"
    return Fate(found.job, found.spent.until(end - start), end, "late", why)


def _seconds(seconds: float) -> str:
    """Return seconds for people: three digits of what is short, tenths of what is long."""
    return f"{seconds:.1f} s" if seconds >= 10 else f"{seconds:.3g} s"
