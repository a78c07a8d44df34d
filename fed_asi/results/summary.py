"""A summary of a run's records, for each budget group and for the whole fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from fed_asi.fleets.config import RunConfig
from fed_asi.results.estimate import Estimate, estimate
from fed_asi.results.lock import is_locked
from fed_asi.results.schema import DeviceRecord, GroupRoundRecord, RoundRecord, RunRecord
from fed_asi.results.store import RunStore
from fed_asi.results.timeline import Timeline, timeline_of
from fed_asi.texts import resume_line


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """One device under one budget, over all rounds that asked it with that budget; sizes in bytes."""

    partition_id: int
    group: str
    budget_bytes: int | None  # None: unlimited
    asked: int
    trained: int
    planned_bytes: int | None  # the largest of its rounds
    measured_bytes: int | None
    published_bytes: int | None
    micro_batch: int | None  # of its last trained round, as are all that follow
    trained_layers: int | None
    accuracy_before: float | None  # on its own held-out images, 0 to 1
    accuracy_after: float | None
    gain: float | None  # of that accuracy in a round, and what follows: the mean over its trained rounds
    gradient_captured: float | None
    paired: int  # rounds that have a twin; what follows is the mean over these
    twin_difference: float | None  # the accuracy it ends a round with, minus its twin's
    twin_cosine: float | None  # of the rounds in which both trained
    twin_measured_bytes: int | None  # the largest, as is what follows
    strategy_bytes: int | None  # that strategy and codec hold beside the step
    ram_bytes: int | None  # counted, of a device that names its ram or flash
    flash_bytes: int | None


@dataclass(frozen=True, slots=True)
class GroupResult:
    """The devices of one group; bytes are the largest of any device, accuracies the mean over devices.

    Each device counts once in an estimate, no matter how often it was asked or which budgets it had.
    """

    name: str
    devices: int
    budgets: tuple[int | None, ...]  # every budget that was in force, ascending, None (unlimited) last
    asked: int
    trained: int
    planned_bytes: int | None
    measured_bytes: int | None
    published_bytes: int | None
    micro_batches: tuple[int, ...]
    trained_layers: tuple[int, ...]
    accuracy_before: float | None
    accuracy_after: float | None
    left_out: dict[str, int]  # outcome other than "trained" -> device-rounds
    gain: Estimate | None
    gradient_captured: Estimate | None
    twin_difference: Estimate | None
    twin_cosine: Estimate | None
    shared: tuple[GroupRoundRecord, ...]  # the shared model on its held-out images, by round
    ram_bytes: int | None = None
    flash_bytes: int | None = None
    ram_limit_bytes: int | None = None  # the least RAM of its devices that say what they have
    resolutions: tuple[int, ...] = ()  # at which its devices see their images, pixels, ascending


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole run, ready to be displayed."""

    name: str  # of the run's folder
    standing: str  # how the run stands, for people
    run: RunRecord
    groups: tuple[GroupResult, ...]
    devices: tuple[DeviceResult, ...]
    rounds: tuple[RoundRecord, ...]
    causes: tuple[tuple[str, str, int], ...]  # (outcome, cause, device-rounds), most frequent first
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    timeline: Timeline | None = None  # of a run with a clock

    @property
    def going(self) -> bool:
        """Whether a process is working on the run right now."""
        return self.standing == "running"

    @property
    def final(self) -> RoundRecord | None:
        """The last round that evaluated the model."""
        evaluated = [record for record in self.rounds if record.accuracy is not None]
        return evaluated[-1] if evaluated else None

    @property
    def sim_seconds(self) -> float | None:
        """The length of the run on its clock, in simulated seconds; None without a clock."""
        return max((end for one in self.rounds if (end := one.sim_end_seconds) is not None), default=None)

    @property
    def energy_joules(self) -> float | None:
        """The energy spent by all devices with known power, in joules; None if there are none."""
        known = [one.energy_joules for one in self.rounds if one.energy_joules is not None]
        return sum(known) if known else None

    @property
    def twins(self) -> str | None:
        """What the devices' twins did without, as in `measure.twins`: "unlimited", "plain"; None: no twins."""
        if not any(one.paired for one in self.devices):
            return None
        return "plain" if RunConfig.from_json(self.run.config).measure.twins == "plain" else "unlimited"

    @property
    def first(self) -> RoundRecord | None:
        """The model before any training, or the first round that evaluated it."""
        return next((record for record in self.rounds if record.accuracy is not None), None)


_DEVICES = """
SELECT devices.partition_id, group_name, told.budget_bytes, told.asked, told.trained,
       planned_bytes, measured_bytes, published_bytes,
       last.micro_batch, last.trained_layers, last.accuracy_before, last.accuracy_after,
       gain, captured, paired, twin_difference, twin_cosine, twin_measured_bytes, strategy_bytes,
       told.ram_bytes, told.flash_bytes
FROM (SELECT partition_id, budget_bytes, count(*) AS asked, sum(outcome = 'trained') AS trained,
             max(planned_bytes) AS planned_bytes, max(measured_bytes) AS measured_bytes,
             max(published_bytes) AS published_bytes,
             avg(CASE WHEN outcome = 'trained' THEN accuracy_after - accuracy_before END) AS gain,
             avg(CASE WHEN outcome = 'trained' THEN gradient_captured END) AS captured,
             count(CASE WHEN outcome IN {paired} THEN twin_accuracy_after END) AS paired,
             avg(CASE WHEN outcome = 'trained' THEN accuracy_after WHEN outcome IN {paired} THEN accuracy_before END
                 - twin_accuracy_after) AS twin_difference,
             avg(CASE WHEN outcome = 'trained' THEN twin_cosine END) AS twin_cosine,
             max(twin_measured_bytes) AS twin_measured_bytes, max(strategy_bytes) AS strategy_bytes,
             max(ram_bytes) AS ram_bytes, max(flash_bytes) AS flash_bytes
      FROM device_rounds GROUP BY partition_id, budget_bytes) AS told
JOIN devices USING (partition_id)
LEFT JOIN (SELECT partition_id, budget_bytes, max(round), micro_batch, trained_layers,
                  accuracy_before, accuracy_after
           FROM device_rounds WHERE outcome = 'trained' GROUP BY partition_id, budget_bytes) AS last
     ON last.partition_id = told.partition_id AND last.budget_bytes IS told.budget_bytes
ORDER BY devices.partition_id, told.budget_bytes IS NULL, told.budget_bytes
""".replace("{paired}", "('trained', 'excluded', 'out-of-memory')")  # ends that a budget brings about
# With a single max(), SQLite takes the other columns from the row with the maximum.


_LEFT_OUT = """
SELECT group_name, outcome, count(*) FROM device_rounds JOIN devices USING (partition_id)
WHERE outcome != 'trained' GROUP BY group_name, outcome ORDER BY group_name, outcome
"""


_CAUSES = """
SELECT outcome, said, times FROM (
    SELECT outcome, coalesce(cause, '') AS said, count(*) AS times,
           row_number() OVER (PARTITION BY outcome ORDER BY count(*) DESC, cause) AS place
    FROM device_rounds WHERE outcome != 'trained' GROUP BY outcome, cause)
WHERE place <= 5 ORDER BY times DESC, outcome, said
"""
# A few for each outcome: causes with seconds in them are all different, and must not crowd out the rest.


def summarise(store: RunStore, how_on: Callable[[Path], str] = resume_line) -> Summary:
    """Return a summary of the records so far; the run may still be going on.

    how_on: returns the command that resumes the run in a folder, if it was stopped.
    """
    devices = tuple(DeviceResult(*row) for row in store.select(_DEVICES))
    left_out: dict[str, dict[str, int]] = {}
    for group, outcome, count in store.select(_LEFT_OUT):
        left_out.setdefault(group, {})[outcome] = count
    fleet = store.devices()
    members: dict[str, list[DeviceRecord]] = {}
    for device in fleet:
        members.setdefault(device.group_name, []).append(device)
    shared: dict[str, list[GroupRoundRecord]] = {}
    for record in store.group_rounds():
        shared.setdefault(record.group_name, []).append(record)
    of_group: dict[str, list[DeviceResult]] = {}
    for one in devices:
        of_group.setdefault(one.group, []).append(one)
    groups = tuple(
        _group(name, all_of_it, of_group.get(name, ()), left_out.get(name, {}), shared.get(name, ()))
        for name, all_of_it in members.items()
    )
    return Summary(
        store.folder.resolve().name,
        _standing(store, how_on),
        store.run(),
        groups,
        devices,
        tuple(store.rounds()),
        tuple(store.select(_CAUSES)),
        tuple(store.notes()),
        tuple(store.missing()),
        timeline_of(store),
    )


def _standing(store: RunStore, how_on: Callable[[Path], str]) -> str:
    run = store.run()
    if run.status == "running" and not is_locked(store.folder):
        return f"stopped half-way; go on with: {how_on(store.folder)}"
    if run.status == "interrupted":
        return f"interrupted; go on with: {how_on(store.folder)}"
    return f"{run.status}: {run.cause}" if run.cause else run.status


def _group(
    name: str,
    members: Sequence[DeviceRecord],
    devices: Sequence[DeviceResult],
    left_out: dict[str, int],
    shared: Sequence[GroupRoundRecord],
) -> GroupResult:
    budgets = {one.budget_bytes for one in devices}
    return GroupResult(
        name=name,
        devices=len(members),
        budgets=tuple(sorted(budgets, key=lambda b: (b is None, b or 0))),
        asked=sum(one.asked for one in devices),
        trained=sum(one.trained for one in devices),
        planned_bytes=_largest(one.planned_bytes for one in devices),
        measured_bytes=_largest(one.measured_bytes for one in devices),
        published_bytes=_largest(one.published_bytes for one in devices),
        micro_batches=_distinct(one.micro_batch for one in devices),
        trained_layers=_distinct(one.trained_layers for one in devices),
        accuracy_before=_mean(one.accuracy_before for one in devices),
        accuracy_after=_mean(one.accuracy_after for one in devices),
        left_out=left_out,
        gain=_over_devices(devices, "gain"),
        gradient_captured=_over_devices(devices, "gradient_captured"),
        twin_difference=_over_devices(devices, "twin_difference"),
        twin_cosine=_over_devices(devices, "twin_cosine"),
        shared=tuple(shared),
        ram_bytes=_largest(one.ram_bytes for one in devices),
        flash_bytes=_largest(one.flash_bytes for one in devices),
        ram_limit_bytes=_least(one.ram_bytes for one in members),
        resolutions=_distinct(one.resolution for one in members),
    )


def _over_devices(devices: Sequence[DeviceResult], name: str) -> Estimate | None:
    """Return the mean of a number over devices, having averaged each device over its budgets first."""
    each: dict[int, list[float]] = {}
    for one in devices:
        value = getattr(one, name)
        if value is not None:
            each.setdefault(one.partition_id, []).append(value)
    return estimate(fmean(values) for values in each.values())


def _largest(values: Iterable[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)


def _least(values: Iterable[int | None]) -> int | None:
    return min((value for value in values if value is not None), default=None)


def _distinct(values: Iterable[int | None]) -> tuple[int, ...]:
    return tuple(sorted({value for value in values if value is not None}))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
