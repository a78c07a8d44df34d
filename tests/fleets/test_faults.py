"""[faults]: shares from 0 to 1, which together are at most all devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    (tmp_path / "fleet.toml").write_text(GOOD)
    return tmp_path / "fleet.toml"


def test_a_file_without_them_loses_no_device(fleet: Path) -> None:
    faults = load_config(fleet).faults
    assert (faults.lost, faults.late, faults.over_budget) == (0.0, 0.0, 0.0)


def test_all_devices_may_fail_in_three_equal_parts(fleet: Path) -> None:
    third = 1 / 3
    settings = [f"faults.{key}={third}" for key in ("lost", "late", "over_budget")]
    assert load_config(fleet, settings).faults.late == third


def test_what_is_no_share_or_more_than_all_is_one_line_each(fleet: Path) -> None:
    assert problems_of(fleet, "faults.lost=1.5", "faults.lat=0.1") == [
        "faults.lost: must be less than or equal to 1, not 1.5",
        "faults.lat: unknown key; did you mean late?",
    ]
    (said,) = problems_of(fleet, "faults.lost=0.7", "faults.late=0.5")
    assert (
        said
        == "faults: lost, late and over_budget are 1.2 in all; a device fails in only one way, so at most 1"
    )
