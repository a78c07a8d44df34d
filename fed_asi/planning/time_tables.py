"""Plans with their time, as text for people: where seconds and joules go, and how they change with the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fed_asi.fleets.clock import joules_of, seconds_of
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Work, total
from fed_asi.planning.columns import columns
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.in_time import TimedPlan
from fed_asi.planning.profile import Profile
from fed_asi.planning.rivals import captured_share
from fed_asi.planning.step_parts import step_parts
from fed_asi.units import format_bytes, format_joules, format_seconds

_WORK = ("dense products", "depthwise", "elements", "bytes moved", "calls")


def where_it_goes(timed: TimedPlan, round: DeviceRound, width: int | None = None) -> str:
    """Return a table of each part of a step: seconds and joules if known, and its work. width: see `columns`."""
    parts = step_parts(round, timed.plan.methods, timed.plan.micro_batch)
    whole = total(parts.values())
    known = round.hardware if round.has_clock else None
    head = ("where it goes", *(("seconds", "share", "joules") if known else ("share",)), *_WORK)
    rows = [head, *(_row(part, work, whole, known) for part, work in parts.items())]
    rows.append(_row("together", whole, whole, known))
    return columns(rows, width)


def _row(name: str, work: Work, whole: Work, hardware: Hardware | None) -> tuple[str, ...]:
    counts = tuple(_count(one) for one in work)
    if hardware is None:
        return (name, f"{work.macs / max(1, whole.macs):.1%}", *counts)
    seconds, all_seconds = seconds_of(work, hardware), seconds_of(whole, hardware)
    joules = joules_of(work, seconds, hardware)
    energy = "-" if joules is None else f"{joules:.3g}"
    return (name, f"{seconds:.3g}", f"{seconds / all_seconds:.1%}", energy, *counts)


def kinds_of_work(round: DeviceRound, timed: TimedPlan) -> str:
    """Return a sentence on which kinds of work a step's seconds go into; empty without a clock."""
    if round.hardware is None or not round.has_clock:
        return ""
    whole = total(step_parts(round, timed.plan.methods, timed.plan.micro_batch).values())
    alone = [Work(*(n if i == kind else 0 for i, n in enumerate(whole))) for kind in range(len(whole))]
    seconds = [seconds_of(one, round.hardware) for one in alone]
    shares = ", ".join(f"{name} {one / sum(seconds):.0%}" for name, one in zip(_WORK, seconds, strict=True))
    return f"seconds by kind of work: {shares}"


def frontier_table(
    rows: Sequence[TimedPlan], chosen: TimedPlan, profile: Profile, width: int | None = None
) -> str:
    """Return a table of bytes against seconds, with a line per plan. width: see `columns`."""
    clock = chosen.spent is not None
    took = ("seconds", "joules") if clock else ("multiply-accumulates",)
    head = (
        "bytes against seconds" if clock else "bytes against products",
        *took,
        "gradient captured",
        "micro-batch",
    )
    found: list[tuple[str, ...]] = [head]
    for one in rows:
        share = f"{captured_share(one.plan, profile):.1%}"
        found.append((format_bytes(one.plan.planned_bytes), *_took(one), share, str(one.plan.micro_batch)))
    return columns(found, width)


def _took(one: TimedPlan) -> tuple[str, ...]:
    if one.spent is None:
        return (_count(one.macs),)
    energy = one.spent.energy_joules
    return f"{one.spent.sim_seconds:.3g}", "-" if energy is None else f"{energy:.3g}"


def takes(timed: TimedPlan) -> str:
    """Return a round's seconds and joules, or its multiply-accumulates, as short text."""
    if timed.spent is None:
        return f"{_count(timed.macs)} multiply-accumulates"
    energy = timed.spent.energy_joules
    joules = "" if energy is None else f", {format_joules(energy)}"
    return f"{format_seconds(timed.spent.sim_seconds)}{joules}"


def _count(number: int) -> str:
    scales: Mapping[str, float] = {"G": 1e9, "M": 1e6, "k": 1e3}
    return next(
        (f"{number / each:.3g} {name}" for name, each in scales.items() if number >= each), str(number)
    )
