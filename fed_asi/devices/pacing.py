"""Plans of devices whose time counts: their hardware and shard decide how long a round under a plan takes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from fed_asi.devices.tasks import Images, Tasks
from fed_asi.errors import ConfigError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.fleet import Device, Fleet
from fed_asi.fleets.hardware import Hardware
from fed_asi.fleets.pace import RATES
from fed_asi.fleets.pace_checks import asks_time
from fed_asi.fleets.resources import Resources
from fed_asi.planning.device_plans import DevicePlans
from fed_asi.planning.device_round import DeviceRound
from fed_asi.planning.in_time import plan_in_time
from fed_asi.planning.plan import Plan
from fed_asi.planning.profile import Profile
from fed_asi.planning.wishes import Wishes
from fed_asi.workplace.counting import networks_of
from fed_asi.workplace.place import Workplace

_NAME = "pacing"  # under which a workplace caches it


def paced(place: Workplace, partition_id: int, plans: DevicePlans) -> DevicePlans:
    """Return a device's plans within the time that a round may take; `plans` itself if its time does not count."""
    found = place.kept.get(_NAME)
    if found is None or found.config is not place.config:
        found = place.kept[_NAME] = _Pacing.of(place)
    known: _Pacing = found
    return plans if known.tasks is None else known.plans(place, partition_id, plans)


@dataclass(frozen=True, slots=True)
class _Pacing:
    """The devices and tasks of a run, made once a process. tasks: None where no plan depends on time.

    rounds: only the last one is cached, as it is large and the plans of a device are asked for one after another.
    """

    config: RunConfig
    fleet: Fleet
    tasks: Tasks | None = None
    known: dict[Hashable, DevicePlans] = field(default_factory=dict)
    rounds: dict[Hashable, DeviceRound] = field(default_factory=dict)

    @classmethod
    def of(cls, place: Workplace) -> _Pacing:
        """Return what plans with time need; nothing is computed for a run that asks for none."""
        if not asks_time(place.config):
            return cls(place.config, Fleet(()))
        tasks = Tasks(place.config, *networks_of(place.folder, place.config), 0)
        extras = len(tasks.exchange.strategy.extras)
        tasks.down_bytes = (1 + extras) * sum(tensor.nbytes for tensor in place.reference.values())
        return cls(place.config, fleet.build(place.config), tasks)

    def plans(self, place: Workplace, partition_id: int, plans: DevicePlans) -> DevicePlans:
        """Return a device's plans, shared by devices with the same hardware, images and limits on time.

        Without a clock, the number of images does not matter: multiply-accumulates are those of a full batch.
        """
        device = self.fleet[partition_id]
        wishes = self.wishes(device)
        if wishes is None:
            return plans
        images = None
        if device.hardware is not None and device.hardware.has_clock:
            shard = place.shard(partition_id)
            images = Images(len(shard.train), len(shard.holdout))
        key = (id(plans), device.hardware, images, wishes)
        if key not in self.known:
            self.known[key] = plans.timed(_Best(self, device.hardware, images, wishes))
        return self.known[key]

    def round(self, hardware: Hardware | None, images: Images | None, resources: Resources) -> DeviceRound:
        """Return what takes time in a device's round, for any plan. images: None for one full batch."""
        if self.tasks is None:
            raise ConfigError("this run does not plan with time")
        key = (hardware, images, resources.batch_size)
        if key not in self.rounds:
            self.rounds.clear()
            duty = self.tasks.duty(resources, images or Images(resources.batch_size, 0))
            self.rounds[key] = DeviceRound(self.tasks.trunk, self.tasks.tail, duty, hardware)
        return self.rounds[key]

    def wishes(self, device: Device) -> Wishes | None:
        """Return the limits on a device's time; None if it has none."""
        objective = self.config.method.objective
        rate = objective if objective in RATES else None
        if rate is None and not device.pace.asks:
            return None
        return Wishes(device.pace.max_seconds, device.pace.max_joules, rate, device.pace.quicker)


@dataclass(frozen=True, slots=True)
class _Best:
    """Finds the best plan of a device within the limits on its time."""

    pacing: _Pacing
    hardware: Hardware | None
    images: Images | None
    wishes: Wishes

    def __call__(
        self, resources: Resources, profile: Profile, budget_bytes: int | None, **options: Any
    ) -> Plan:
        """Return that plan. Raises BudgetError where no plan is within the limits."""
        round = self.pacing.round(self.hardware, self.images, resources)
        return plan_in_time(profile, budget_bytes, round, self.wishes, **options).plan
