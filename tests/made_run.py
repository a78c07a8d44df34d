"""Made-up records of a run, for tests of their readers: three groups, one with a budget too small to train."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from fed_asi import seeds
from fed_asi.fleets import fleet
from fed_asi.fleets.config import GroupConfig, RunConfig
from fed_asi.results.schema import DeviceRecord, DeviceRoundRecord, RoundRecord
from fed_asi.results.store import RunStore

GROUPS = (
    GroupConfig(name="tight", count=1, budget=2048),
    GroupConfig(name="medium", count=4, budget=64 * 1024),
    GroupConfig(name="roomy", count=3, budget=None),
)


def rising(number: int) -> float:
    return 0.9 - 0.7 / number


def make(
    folder: Path,
    *,
    seed: int = 0,
    rounds: int = 4,
    groups=GROUPS,
    finish: bool = True,
    begun: bool = True,
    accuracy: Callable[[int], float] = rising,  # of the shared model, by round
    bytes_up: int = 0,  # a round
) -> Path:
    count = sum(group.count for group in groups)
    config = RunConfig(name=folder.name, cohort=count, rounds=rounds, groups=groups, seed=seed)
    rng = seeds.rng(seed, "made")
    with RunStore.create(folder, config, {"torch": "2.13.0", "python": "3.11"}) as store:
        devices = fleet.build(config)
        store.add_devices(
            DeviceRecord(
                partition_id=d.partition_id, group_name=d.group, num_examples=100, **asdict(d.resources)
            )
            for d in devices
        )
        store.note("the server trained the network on 300 public images")
        if begun:
            store.add_round(RoundRecord(0, 0, 0, 2.3, 0.12, 0.0))
        for number in range(1, rounds + 1 if begun else 1):
            reached = accuracy(number)
            told = [_device_round(number, d, reached + 0.1 * rng.random()) for d in devices]
            trained = sum(one.outcome == "trained" for one in told)
            record = RoundRecord(
                number, count, trained, 1 / number, reached, reached / 2, 0.05, 1.5, bytes_up, 2 * bytes_up
            )
            store.add_round(record, told)
        if finish:
            store.set_status("finished", weights_sha256=f"weights of {seed}")
    return folder


def _device_round(number: int, device: fleet.Device, accuracy: float) -> DeviceRoundRecord:
    budget = device.resources_at(number).budget_bytes
    if budget is not None and budget < 4096:
        cause = "budget 2.0 KiB is below the smallest plan, 4.0 KiB"
        return DeviceRoundRecord(number, device.partition_id, "excluded", cause, budget_bytes=budget)
    planned = budget - 1000 if budget is not None else 400_000
    return DeviceRoundRecord(
        number,
        device.partition_id,
        "trained",
        method="asi",
        budget_bytes=budget,
        planned_bytes=planned,
        measured_bytes=planned - 100 * device.partition_id,
        published_bytes=planned // 3,
        micro_batch=8,
        ranks={"conv": [1, 2, 3, 3]},
        trained_layers=4,
        num_examples=80,
        loss_before=1.0,
        loss_after=0.9,
        accuracy_before=accuracy - 0.05,
        accuracy_after=accuracy,
        host_seconds=0.1,
    )
