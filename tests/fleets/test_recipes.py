"""Every method a fleet file can name trains a small fleet, is metered and recorded."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from fed_asi.devices.job import Job
from fed_asi.devices.work import train_locally
from fed_asi.fleets.resources import Resources
from fed_asi.methods import recipe_names
from fed_asi.workplace.prepare import prepare
from runs import small

NAMES = recipe_names()
KEPT = {  # kinds that the record must show, beside the classifier's own
    "asi": "asi",
    "asi-published": "asi",
    "bias": "bias",
    "channels": "channels",
    "checkpointing": "vanilla",
    "fixed-subspace": "fixed",
    "gradient-filter": "filter",
    "head": "vanilla",
    "hosvd": "hosvd",
    "planner": "",
    "quantized": "quantized",
    "vanilla": "vanilla",
}


def test_every_name_is_tried() -> None:
    assert set(NAMES) == set(KEPT)


@pytest.fixture(autouse=True)
def _features(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))


@pytest.mark.few(4)
@pytest.mark.parametrize("name", NAMES)
def test_a_device_trains_by_every_name(name: str, tmp_path: Path) -> None:
    config = small(method={"name": name, "centered": None, "layers": 2, "calibration_images": 8})
    place = prepare(config, tmp_path / "workplace")
    before = place.reference
    job = Job(1, 0, Resources(None, 16), 0.05, check=True)
    result = train_locally(place, job, before)
    stats = result.stats
    assert stats["outcome"] == "trained", stats
    assert set(filter(None, [KEPT[name]])) <= set(stats["method"].split("+"))
    assert 0 < stats["measured_bytes"] < 16 * 2**20
    assert math.isfinite(stats["loss_after"])
    assert any(not tensor.equal(before[key]) for key, tensor in result.tensors.items())
    assert "WARNING" not in " ".join(result.notes)


@pytest.mark.parametrize("name", ["hosvd", "checkpointing"])
def test_a_step_over_its_budget_stops_whatever_the_plan_said(name: str, tmp_path: Path) -> None:
    place = prepare(small(method={"name": name, "centered": None}), tmp_path / "workplace")
    free = train_locally(place, Job(1, 0, Resources(None, 16, 16), 0.05), place.reference).stats
    tight = Job(1, 0, Resources(free["measured_bytes"] - 1, 16, 16), 0.05)
    stats = train_locally(place, tight, place.reference).stats
    assert stats["outcome"] in ("out-of-memory", "excluded")
