"""Where a run's workplace is, and what it must have been prepared for."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_asi import seeds
from fed_asi.fleets.aggregate import AggregateConfig, UploadConfig
from fed_asi.fleets.clock_keys import ClockConfig
from fed_asi.fleets.config import ComputeConfig, RunConfig
from fed_asi.fleets.device_keys import DeviceKeys
from fed_asi.fleets.faults import FaultsConfig
from fed_asi.fleets.storage import StorageConfig

WORKPLACE_DIR = "FED_ASI_WORKPLACE_DIR"


@dataclass(frozen=True, slots=True)
class RunAddress:
    """Where a worker finds a run's workplace: its folder, and what it must have been prepared for.

    depot: name of the source for machines that cannot see the folder; empty: all machines see it.
    """

    folder: str
    fingerprint: str
    depot: str = ""


def workplace_folder(run_folder: Path) -> Path:
    """Return where a run's workplace is: in its own folder, or under a shared one (FED_ASI_WORKPLACE_DIR)."""
    shared = os.environ.get(WORKPLACE_DIR)
    return Path(shared) / run_folder.name if shared else run_folder / "workplace"


def address_of(folder: Path, config: RunConfig) -> RunAddress:
    """Return what a worker needs to find a run's workplace, on this machine or one that shares its folder."""
    found = folder.name if os.environ.get(WORKPLACE_DIR) else str(folder.resolve())
    return RunAddress(found, run_fingerprint(config))


def run_fingerprint(config: RunConfig) -> str:
    """Return a hash of all settings that can change a run's weights: all but where and how fast it runs.

    A setting that older runs did not have is left out if it has the value that they implied.
    """
    free: dict[str, Any] = {"name": True, "budgets_csv": True, "measure": True}
    free["code"] = True  # the names of code contain its hash
    implied: tuple[tuple[bool, str, Any], ...] = (
        (config.faults == FaultsConfig(), "faults", True),
        (config.upload == UploadConfig(), "upload", True),
        (config.aggregate.strategy == AggregateConfig().strategy, "aggregate", {"strategy"}),
        (True, "storage", _free_of_storage(config.storage)),
        (not config.pretrain.head_epochs, "pretrain", {"head_epochs"}),
        (config.clock == ClockConfig(), "clock", True),
    )
    free |= {section: left_out for holds, section, left_out in implied if holds}
    free["compute"] = _free_of_compute(config.compute)
    content = config.model_dump(mode="json", exclude=free)
    if "device" in content["compute"]:
        content["compute"]["device"] = content["compute"]["device"].partition(":")[
            0
        ]  # any GPU counts as the same
    for key in ("at_work", "staleness"):
        if "clock" in content and content["clock"][key] is None:
            del content["clock"][key]
    for owner in (*content["groups"], *content["devices"]):
        for key in (*DeviceKeys.model_fields, "ram", "flash", "reserve"):
            if owner[key] is None:
                del owner[key]  # for the same reason
    return f"{seeds.derive(0, json.dumps(content, sort_keys=True)):016x}"


def _free_of_storage(storage: StorageConfig) -> set[str] | bool:
    """Return the keys that have the value older runs implied, and the images that nothing calibrates; True: all."""
    implied = {
        key for key in ("trained", "trunk_by") if getattr(storage, key) == getattr(StorageConfig(), key)
    }
    if storage.frozen == StorageConfig().frozen:
        implied |= {"frozen", "calibration_images"}
    return implied == set(StorageConfig.model_fields) or implied


def _free_of_compute(compute: ComputeConfig) -> set[str]:
    """Return the keys that say where and how fast a run runs, and those that have the value older runs implied."""
    chosen = ("device", "trunk_engine", "gradients_at")
    return {
        "backend",
        "workers",
        "cpus_per_client",
        "gpus_per_client",
        "ray_address",
        "deadline_seconds",
        "features_limit",
        *(key for key in chosen if getattr(compute, key) == getattr(ComputeConfig(), key)),
    }
