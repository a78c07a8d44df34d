"""What each kind of device would train with, found before anything of a run is started or written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fed_asi import data
from fed_asi.errors import BudgetError
from fed_asi.fleets import fleet
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.resources import Resources
from fed_asi.machine import threads
from fed_asi.memory.device import DeviceMemory
from fed_asi.planning.device_plans import Attempt
from fed_asi.workplace.choosing import with_storage
from fed_asi.workplace.prepare import build_model
from fed_asi.workplace.profiled import Profiled, profiled
from fed_asi.workplace.splits import split_images
from fed_asi.workplace.start import check_start


@dataclass(frozen=True, slots=True)
class Ahead:
    """Devices of a group that have the same resources from a round on, and their first plan or why there is none.

    resolution: at which they train, pixels. memory: what the plan's step needs, for devices that name RAM or flash.
    """

    group: str
    devices: int
    round: int
    resources: Resources
    resolution: int
    attempt: Attempt | None
    memory: DeviceMemory | None = None
    cause: str = ""


def look_ahead(
    config: RunConfig, *, data_dir: Path | None = None, weights_dir: Path | None = None
) -> list[Ahead]:
    """Return what each group's devices would train with, once data, shards, network and settings are checked.

    Computed with the initial weights of the network: if the server trains it first, ranks may differ.
    Raises what `prepare` raises before its long part.
    """
    with threads(config.compute.threads):
        source = data.load(config.data.source, data_dir)
        splits = split_images(config, source)
        model = build_model(config, source.num_classes, weights_dir)
        check_start(config, splits, model, source.num_classes)
        config = with_storage(config, model.eval(), splits.public)
        found = profiled(config, model, splits.public)
        return list(_plans(config, found))


def _plans(config: RunConfig, found: Profiled) -> Iterator[Ahead]:
    kinds, first = Counter[tuple[str, int, Resources, int]](), dict[int, int]()
    for device in fleet.build(config):
        pixels = found.taken[device.partition_id]
        first.setdefault(pixels, device.partition_id)
        kinds.update((device.group, start, resources, pixels) for start, resources in device.phases)
    for kind, devices in kinds.items():
        group, start, resources, pixels = kind
        plans = found.plans_of(first[pixels])
        try:
            attempt = next(plans.attempts(resources))
        except BudgetError as error:
            yield Ahead(group, devices, start, resources, pixels, None, cause=str(error))
        else:
            memory = plans.memory(attempt.plan, resources)
            yield Ahead(group, devices, start, resources, pixels, attempt, memory)
