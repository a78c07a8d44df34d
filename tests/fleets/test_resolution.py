"""The resolutions at which devices may train, as a fleet file gives them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fed_asi.fleets import fleet
from fed_asi.fleets.checks import check
from fed_asi.fleets.config import GroupConfig, RunConfig
from runs import small

BOARD = {"name": "board", "count": 2, "budget": "unlimited"}


def of(resolution: Any, **changes: Any) -> RunConfig:
    return small(groups=[{**BOARD, "resolution": resolution}], cohort=2, **changes)


@pytest.mark.parametrize(
    ("said", "expected"), [(64, (64,)), ([64, 128, 96], (128, 96, 64)), ([8], (8,)), (None, None)]
)
def test_one_number_or_several_the_largest_first(said: Any, expected: tuple[int, ...] | None) -> None:
    group = GroupConfig.model_validate({**BOARD, "resolution": said})
    assert group.resolution == expected
    config = of(said)
    assert RunConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize("said", [[], 7, 1025, [128, 4], "128", True, [64.0], 64.5, {}, [[64]]])
def test_what_is_no_resolution_says_what_is(said: Any) -> None:
    with pytest.raises(ValidationError, match="must be pixels of a square input, from 8 to 1024"):
        GroupConfig.model_validate({**BOARD, "resolution": said})


def test_a_resolution_given_twice_is_named() -> None:
    with pytest.raises(ValidationError, match=r"names a resolution twice: \[96, 96\]"):
        GroupConfig.model_validate({**BOARD, "resolution": [96, 96]})


def test_a_device_has_its_own_or_its_groups() -> None:
    config = small(
        groups=[{**BOARD, "resolution": [96, 64]}, {**BOARD, "name": "plain"}],
        devices=[
            {"partition_id": 1, "budget": "1 KiB", "resolution": 32},
            {"partition_id": 3, "budget": 9},
        ],
        budgets={0: 5},
    )
    assert [device.resolutions for device in fleet.build(config)] == [(96, 64), (32,), (), ()]


def test_sums_of_all_devices_are_of_one_resolution() -> None:
    said = [one for one in check(of([16, 8], method={"calibration": "federated"})) if "resolution" in one]
    assert said == [
        'groups[0].resolution: 16, 8, but method.calibration = "federated" adds up what all devices see at 32 pixels '
        '(model.resolution); use "server" or "device"'
    ]
    assert not [one for one in check(of(32, method={"calibration": "federated"})) if "resolution" in one]
    assert not [one for one in check(of([16, 8], method={"calibration": "device"})) if "resolution" in one]
