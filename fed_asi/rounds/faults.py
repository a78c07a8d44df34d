"""Which devices a round loses on purpose ([faults]), drawn by seed, so that every back end loses the same ones."""

from __future__ import annotations

from dataclasses import dataclass

from fed_asi import seeds
from fed_asi.fleets.faults import FaultsConfig
from fed_asi.results.schema import Outcome


@dataclass(frozen=True, slots=True)
class Fault:
    """How a device's round ends instead of being trained, and why."""

    outcome: Outcome
    cause: str


def fault_of(faults: FaultsConfig, seed: int, round: int, partition_id: int) -> Fault | None:
    """Return the fault of a device in a round, a pure function of seed, round and device; None: no fault.

    One number is drawn for each device and round, whatever the shares. If the share of one fault grows, the devices
    that had it before still have it.
    """
    if faults == FaultsConfig():
        return None
    drawn = seeds.rng(seed, "faults", round, partition_id).random()
    kinds: tuple[tuple[Outcome, float, str], ...] = (
        ("killed", faults.lost, f"[faults] lost = {faults.lost:g}: gone before it answered"),
        ("timeout", faults.late, f"[faults] late = {faults.late:g}: its answer came after the round"),
        (
            "out-of-memory",
            faults.over_budget,
            f"[faults] over_budget = {faults.over_budget:g}: it had less memory than it said",
        ),
    )
    for outcome, share, cause in kinds:
        if drawn < share:
            return Fault(outcome, cause)
        drawn -= share
    return None
