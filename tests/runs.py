"""Small real runs for the tests of local work, rounds, Flower, faults and resuming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fed_asi.devices.job import Job
from fed_asi.fleets.config import RunConfig
from fed_asi.fleets.resources import Resources
from fed_asi.results.schema import TIMES
from fed_asi.results.store import RunStore

# Whole runs to the same bits: the fast suite has one case of each kind, the slow suite the others.
LATER = (pytest.mark.slow, pytest.mark.computes)


def small(**changes: Any) -> RunConfig:
    """Return the settings of 6 devices with 2 layers of the tiny network and the digits; sections merge."""
    settings: dict[str, Any] = {
        "name": "small",
        "seed": 1,
        "rounds": 2,
        "cohort": 3,
        "model": {"name": "tiny", "weights": "none", "resolution": 32},
        "data": {"source": "digits", "public": 64, "limit": 240, "test_limit": 64},
        "sharding": {"scheme": "dirichlet", "alpha": 0.5, "minimum": 12},
        "method": {"name": "vanilla", "layers": 2, "calibration_images": 32, "centered": False},
        "compute": {"backend": "loop", "workers": 2, "deadline_seconds": 120.0},
        "groups": [
            {"name": "tight", "count": 3, "budget": "160 KiB", "batch_size": 16},
            {"name": "roomy", "count": 3, "budget": "unlimited", "batch_size": 16},
        ],
    }
    for key, value in changes.items():
        settings[key] = {**settings.get(key, {}), **value} if isinstance(value, dict) else value
    return RunConfig.model_validate(settings)


PLENTY = Resources(None, 16)


def job(resources: Resources = PLENTY, **changes: Any) -> Job:
    """Return what device 2 is asked in round 1, without a budget, but for what is given: of it or of its resources."""
    own = {key: changes.pop(key) for key in [*changes] if hasattr(resources, key)}
    return Job(
        **{"round": 1, "partition_id": 2, "lr": 0.05, "resources": replace(resources, **own), **changes}
    )


def records(folder: Path) -> tuple[Sequence[dict[str, Any]], str | None]:
    """Return every record of a run but its times, and its weights' hash."""
    with RunStore.read(folder) as store:
        rows = [*store.rounds(), *store.device_rounds(), *store.group_rounds()]
        kept = [{k: getattr(row, k) for k in row.__dataclass_fields__ if k not in TIMES} for row in rows]
        return kept, store.run().weights_sha256
