"""The sums that the server expects: an honest device's pass, whatever else is sent, and a device cannot claim bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fed_asi import layers
from fed_asi.devices import calibration
from fed_asi.devices.calibration import COLUMNS
from fed_asi.devices.sums import Expected
from fed_asi.errors import UpdateError
from fed_asi.workplace.place import Workplace
from fed_asi.workplace.prepare import prepare
from runs import small

EVERY = [
    "asi",
    "quantized",
    "vanilla",
    "bias",
    "mean",
    "hosvd(epsilon=0.8)",
    "fixed(epsilon=0.7)",
    "filter(patch=2)",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder: Path = tmp_path_factory.mktemp("run")
    method = {
        "name": "planner",
        "methods": ["quantized", "vanilla"],
        "layers": 2,
        "calibration": "federated",
        "calibration_images": 8,
        "centered": None,
    }
    groups = [{"name": "all", "count": 3, "budget": "unlimited", "batch_size": 4, "micro_batch": 4}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FED_ASI_FEATURES_DIR", str(tmp_path_factory.getbasetemp() / "features"))
        patch.setenv("FED_ASI_PROFILES_DIR", str(tmp_path_factory.getbasetemp() / "profiles"))
        made = prepare(small(method=method, groups=groups, data={"limit": 60}), folder / "workplace")
    every = made.config.method.model_copy(update={"methods": tuple(EVERY)})  # rivals too, which no run mixes
    return replace(made, config=made.config.model_copy(update={"method": every}))


@pytest.fixture(scope="module")
def sent(place: Workplace) -> tuple[Expected, dict[str, torch.Tensor]]:
    """What is expected in the second pass, and what device 1 honestly sends."""
    first = calibration.sums_for(place, 1, calibration.SPECTRA, {})
    Expected.of(place, calibration.SPECTRA, {}).check(1, first)
    return Expected.of(place, calibration.TRIALS, first), calibration.sums_for(
        place, 1, calibration.TRIALS, first
    )


def test_an_honest_devices_sums_pass(sent: tuple[Expected, dict[str, torch.Tensor]]) -> None:
    expected, sums = sent
    expected.check(1, sums)
    assert {name for name in sums if name.endswith(" energies")}


def test_bytes_that_follow_from_shapes_are_no_devices_to_say(
    sent: tuple[Expected, dict[str, torch.Tensor]],
) -> None:
    expected, sums = sent
    name = next(name for name in sorted(sums) if name.endswith(" 4"))
    forms = sums[name].view(-1, COLUMNS)
    kept = int((forms[:, 0] > 0).nonzero()[0])
    for bytes_said in (forms[kept, 0] + 1, forms[kept, 0] - 1, -1.0):
        lie = forms.clone()
        lie[kept, 0] = bytes_said
        with pytest.raises(UpdateError, match=f"holds .* at {COLUMNS * kept}, and may hold"):
            expected.check(1, {**sums, name: lie.flatten()})


def test_a_form_that_a_layer_cannot_take_has_no_bytes(
    sent: tuple[Expected, dict[str, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, sums = sent
    kind = layers.kind_of(expected.blank[0].module)
    monkeypatch.setattr(type(kind), "unsupported", lambda *_given: "takes nothing today")
    without = Expected.of(expected.place, expected.phase, expected.pooled)
    with pytest.raises(UpdateError, match="may hold -1 to -1"):
        without.check(1, sums)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex128, torch.bool, torch.int64])
def test_vectors_of_another_type_are_named(
    dtype: torch.dtype, sent: tuple[Expected, dict[str, torch.Tensor]]
) -> None:
    expected, sums = sent
    for name in ("images", next(name for name in sums if name.endswith(" energies"))):
        with pytest.raises(UpdateError, match=rf"^{name} is torch\.\w+ of shape \(\d,\), not torch.float64"):
            expected.check(1, {**sums, name: torch.ones(len(sums[name]), dtype=dtype)})


def test_sums_of_more_images_than_a_device_has_are_named(
    sent: tuple[Expected, dict[str, torch.Tensor]],
) -> None:
    expected, sums = sent
    with pytest.raises(UpdateError, match=r"^images holds 9 at 0, and may hold 8 to 8$"):
        expected.check(1, {**sums, "images": torch.tensor([9.0], dtype=torch.float64)})
