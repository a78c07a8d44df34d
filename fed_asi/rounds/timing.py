"""What the devices of a run spend in a round, in simulated seconds and joules: predicted, and afterwards.

Both are pure functions of plan, hardware and shard, computed by the server: no device reports how long it took.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from fed_asi.devices.calibration import plans_for
from fed_asi.devices.job import Job
from fed_asi.devices.tasks import Images, Tasks
from fed_asi.devices.work import described
from fed_asi.errors import BudgetError
from fed_asi.fleets.clock import Spent, Task, spent
from fed_asi.fleets.fleet import Fleet
from fed_asi.fleets.hardware import Hardware
from fed_asi.memory.work import Work, total
from fed_asi.planning.device_plans import Attempt
from fed_asi.workplace.counting import networks_of
from fed_asi.workplace.place import Workplace

NOTHING = Task(0, Work(), Work(), Work(), 0)
AT_ONCE = Spent(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)  # a device without a plan only says so


@dataclass(frozen=True, slots=True)
class Timing:
    """The cost in time and energy of devices' rounds; devices without rates have no times.

    tasks: at the model's resolution. at: at each of the others that devices train at.
    """

    place: Workplace
    fleet: Fleet
    tasks: Tasks
    at: Mapping[int, Tasks] = field(default_factory=dict)
    _images: dict[int, Images] = field(default_factory=dict)

    @classmethod
    def of(cls, place: Workplace, fleet: Fleet) -> Timing | None:
        """Return the timing of a run; None where no device has a clock."""
        if not any(device.hardware is not None and device.hardware.has_clock for device in fleet):
            return None
        every = {one.resolution: _tasks(one) for one in (place, *place.views.values())}
        found = cls(place, fleet, every.pop(place.resolution), every)
        found.sends(place.reference)
        return found

    def sends(self, tensors: Mapping[str, Tensor]) -> None:
        """Count the transfer of these tensors to devices from now on: the tensors of a strategy depend on the round."""
        for tasks in (self.tasks, *self.at.values()):
            tasks.down_bytes = sum(tensor.nbytes for tensor in tensors.values())

    def notes(self) -> list[str]:
        """Return notes on the times for readers."""
        uncounted = [*self.tasks.trunk.uncounted, *self.tasks.tail.uncounted]
        if not uncounted:
            return []
        more = f" and {len(uncounted) - 3} more" if len(uncounted) > 3 else ""
        return [f"the clock does not count the products of {', '.join(uncounted[:3])}{more}"]

    def hardware(self, partition_id: int) -> Hardware | None:
        """Return a device's hardware where it has a clock."""
        found = self.fleet[partition_id].hardware
        return found if found is not None and found.has_clock else None

    def ahead(self, job: Job) -> Spent | None:
        """Return what a job will take by the device's own plan; None without a clock."""
        hardware = self.hardware(job.partition_id)
        if hardware is None:
            return None
        try:
            attempt = next(self._attempts(job))
        except BudgetError:
            return AT_ONCE
        return spent(self._task(job, attempt), hardware)

    def after(self, job: Job, stats: Mapping[str, Any]) -> Spent | None:
        """Return what a job took. stats: from its reply. A plan that was refused ended in its first step."""
        hardware = self.hardware(job.partition_id)
        if hardware is None:
            return None
        if stats["outcome"] == "excluded":
            return AT_ONCE
        try:
            return spent(self._done(job, stats), hardware)
        except BudgetError:
            return AT_ONCE

    def _done(self, job: Job, stats: Mapping[str, Any]) -> Task:
        """Return what was really done: the first steps of refused plans, then all of the accepted one."""
        refused, first = list[Task](), None
        for attempt in self._attempts(job):  # plans after the accepted one need not be made
            if stats["outcome"] != "out-of-memory" and _is_of(attempt, stats):
                return _together(refused, self._task(job, attempt))
            refused.append(self._first_step(job, attempt))
            first = first or attempt
        if stats["outcome"] == "out-of-memory" or first is None:
            return _together(refused, replace(NOTHING, down_bytes=self.tasks.down_bytes))
        return self._task(job, first)  # killed, for example: its own plan, as predicted

    def _attempts(self, job: Job) -> Iterator[Attempt]:
        return plans_for(self.place.seen_by(job.partition_id), job.partition_id).attempts(job.resources)

    def _tasks_of(self, job: Job) -> Tasks:
        return self.at.get(self.place.seen_by(job.partition_id).resolution, self.tasks)

    def _task(self, job: Job, attempt: Attempt) -> Task:
        images = self.images(job.partition_id)
        return self._tasks_of(job).task(attempt.plan, job.resources, images, job.steps)

    def _first_step(self, job: Job, attempt: Attempt) -> Task:
        return self._tasks_of(job).first_step(attempt.plan, job.resources, self.images(job.partition_id))

    def images(self, partition_id: int) -> Images:
        """Return how many images a device trains on, and how many it holds back."""
        if partition_id not in self._images:
            shard = self.place.shard(partition_id)
            self._images[partition_id] = Images(len(shard.train), len(shard.holdout))
        return self._images[partition_id]


def _tasks(place: Workplace) -> Tasks:
    return Tasks(place.config, *networks_of(place.folder, place.config), 0)


def _is_of(attempt: Attempt, stats: Mapping[str, Any]) -> bool:
    said = {"policy": attempt.policy, **described(attempt.plan)}
    return all(stats.get(key) == value for key, value in said.items())


def _together(refused: list[Task], task: Task) -> Task:
    every = [*refused, task]
    return Task(
        task.down_bytes,
        total(one.trunk for one in every),
        total(one.step for one in every),
        total(one.judging for one in every),
        task.up_bytes,
    )
