"""A device's limits, whether a step is within them, and the error if none is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fed_asi.errors import BudgetError
from fed_asi.memory.device import DeviceMemory
from fed_asi.units import format_bytes, parse_bytes, told_apart


@dataclass(frozen=True, slots=True)
class Within:
    """A device's limits in bytes; None for no limit. reserve_bytes: part of the RAM, for what is not counted."""

    ram_bytes: int | None = None
    flash_bytes: int | None = None
    budget_bytes: int | None = None
    reserve_bytes: int = 0

    @classmethod
    def of(
        cls,
        ram: str | int | None = None,
        flash: str | int | None = None,
        budget: str | int | None = None,
        reserve: str | int | None = None,
    ) -> Within:
        """Return a device's limits from bytes or text such as "320 KiB". Raises ConfigError for anything else."""
        kept = 0 if reserve is None else parse_bytes(reserve) or 0
        return cls(parse_bytes(ram), parse_bytes(flash), parse_bytes(budget), kept)

    @property
    def arena_bytes(self) -> int | None:
        """RAM without the reserve; None for no limit."""
        return None if self.ram_bytes is None else self.ram_bytes - self.reserve_bytes

    def holds(self, memory: DeviceMemory) -> bool:
        """Return whether RAM and flash suffice; a reserve in `memory` itself is counted in addition."""
        ram, flash = self.arena_bytes, self.flash_bytes
        return (ram is None or memory.ram_bytes <= ram) and (flash is None or memory.flash_bytes <= flash)


def nothing_fits(within: Within, smallest: DeviceMemory) -> BudgetError:
    """Return the error for a device that no plan fits. smallest: the memory of the smallest step, without a reserve."""
    memory = replace(smallest, reserve_bytes=within.reserve_bytes)
    if within.ram_bytes is not None and memory.ram_bytes > within.ram_bytes:
        given, needed = told_apart(within.ram_bytes, memory.ram_bytes)
        return BudgetError(
            f"ram {given} is below the smallest step, {needed}: {needs(memory)} {_advice(memory)}"
        )
    if within.flash_bytes is not None and memory.flash_bytes > within.flash_bytes:
        given, needed = told_apart(within.flash_bytes, memory.flash_bytes)
        return BudgetError(
            f"flash {given} is below what is only read, {needed}: "
            "frozen weights, statistics and tables, as they are stored. Take a smaller network."
        )
    limits = {"the budget": within.budget_bytes, "ram": within.ram_bytes, "flash": within.flash_bytes}
    named = [f"{name} of {format_bytes(size)}" for name, size in limits.items() if size is not None]
    advice = "Raise one of them" + ("." if within.budget_bytes is None else ", or leave the budget out.")
    return BudgetError(f"no plan is within {' and '.join(named)} at one time. {advice}")


def needs(memory: DeviceMemory) -> str:
    """Return sentences on the RAM of a step: its static bytes, the phase that binds, and its largest tensors."""
    tensors = ", ".join(f"{one.name} {format_bytes(one.bytes)}" for one in memory.largest())
    phase = max(memory.trunk_bytes, memory.step.bytes)
    return (
        f"{format_bytes(memory.static_bytes)} stay, the {memory.phase} needs {format_bytes(phase)}, "
        f"{format_bytes(memory.reserve_bytes)} are reserved. Largest in the {memory.phase}: {tensors}."
    )


def _advice(memory: DeviceMemory) -> str:
    if memory.phase == "trunk":
        return "These have to shrink: lower its resolution, run it by channels (trunk_by), or take a smaller network."
    return "These have to shrink: train fewer layers, lower the micro-batch, or take a smaller network."
