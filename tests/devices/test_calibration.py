"""A device's own calibration: the profile from which its plans are made, and where it is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fed_asi.devices import calibration
from fed_asi.devices.calibration import own_profile, plans_for, sums_for
from fed_asi.errors import ProfileError
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import small

GROUPS = [{"name": "all", "count": 3, "budget": "unlimited", "batch_size": 4, "micro_batch": 2}]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("run")
    method = {
        "name": "planner",
        "methods": ["quantized", "vanilla"],
        "layers": 1,
        "calibration": "device",
        "calibration_images": 8,
        "centered": None,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        return prepare(small(method=method, groups=GROUPS, data={"limit": 60}), folder / "workplace")


def whose(place: Workplace, calibration: str) -> Workplace:
    method = place.config.method.model_copy(update={"calibration": calibration})
    return replace(place, config=place.config.model_copy(update={"method": method}), own_plans={})


def test_plans_come_from_the_profile_that_the_run_says(place: Workplace) -> None:
    assert plans_for(whose(place, "server"), 0) is place.plans
    own = whose(place, "device")
    assert plans_for(own, 0).profile == own_profile(place, 0)
    assert plans_for(own, 0) is plans_for(own, 0)
    assert plans_for(own, 0).profile != plans_for(own, 1).profile
    assert (place.folder / "profiles" / "0.json").exists()
    with pytest.raises(ProfileError):
        plans_for(whose(place, "federated"), 0)  # nobody has made it yet


def test_an_own_profile_that_is_kept_is_taken(place: Workplace) -> None:
    made = plans_for(whose(place, "device"), 2).profile
    path = place.folder / "profiles" / "2.json"
    path.write_text(replace(made, num_examples=4321).to_json())
    assert plans_for(whose(place, "device"), 2).profile.num_examples == 4321


def test_sums_are_of_the_devices_images_alone(place: Workplace) -> None:
    sums = sums_for(place, 1, calibration.SPECTRA, {})
    assert float(sums["images"]) == 8
    assert {vector.dtype for vector in sums.values()} == {torch.float64}
    layer = place.plans.profile.layers[0]
    rows = torch.from_numpy(place.shard(1).train[:8])
    assert len(sums[f"{layer.name} channels"]) == layer.input_shape[0]
    assert len(rows) == 8
    again = sums_for(place, 1, calibration.SPECTRA, {})
    assert all(torch.equal(sums[name], again[name]) for name in sums)
