"""The keys of a device: a text stands for the first key, and numbers must be within their range."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fed_asi.fleets.device_keys import DeviceKeys
from fed_asi.fleets.hardware import NUMBERS


def test_a_text_is_the_preset_or_the_kind() -> None:
    found = DeviceKeys.model_validate({"device": "rp2040", "presence": "daily"})
    assert found.device is not None
    assert found.presence is not None
    assert (found.device.preset, found.presence.kind) == ("rp2040", "daily")
    assert found.device.numbers == {}


def test_every_number_is_a_key() -> None:
    found = DeviceKeys.model_validate(
        {"device": {key: "1 KiB" if key in {"ram", "flash"} else 1.0 for key in NUMBERS}}
    )
    assert found.device is not None
    assert set(found.device.numbers) == set(NUMBERS)
    assert found.device.ram == 1024
    assert DeviceKeys.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize(
    "said",
    [
        {"device": {"dense_per_second": -1.0}},
        {"device": {"spread": 4}},
        {"device": {"speed": 1}},
        {"presence": "sometimes"},
        {"presence": {"share": 0}},
        {"presence": {"zones": []}},
        {"presence": {"from_hour": 25}},
    ],
)
def test_what_cannot_be_is_refused(said: object) -> None:
    with pytest.raises(ValidationError):
        DeviceKeys.model_validate(said)
