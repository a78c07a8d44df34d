"""RAM and flash in a fleet file, right and wrong, before anything starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fed_asi.fleets import fleet
from fed_asi.fleets.file import load_config
from fleet_file import GOOD, problems_of


def test_ram_and_flash_are_the_presets_where_they_say_device(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(
        GOOD
        + 'device = "stm32f746"\nram = "device"\nflash = "device"\nreserve = "40 KiB"\n'
        + '[[devices]]\npartition_id = 3\nbudget = 5000\nram = "100 KiB"\n'
        + '[[devices]]\npartition_id = 2\nbudget = 5000\ndevice = "stm32h743"\n'
        + '[[devices]]\npartition_id = 0\nbudget = 5000\ndevice = "rp2040"\nflash = "device"\n'
    )
    devices = fleet.build(load_config(path, cpus=4))
    found = devices[4].resources
    assert (found.ram_bytes, found.flash_bytes, found.reserve_bytes) == (320 * 1024, 1024 * 1024, 40 * 1024)
    own = devices[3].resources
    assert (own.ram_bytes, own.flash_bytes, own.reserve_bytes) == (100 * 1024, 1024 * 1024, 40 * 1024)
    other = devices[2].resources  # its group says "device", and it is another one
    assert (other.ram_bytes, other.flash_bytes) == (512 * 1024, 2048 * 1024)
    assert (devices[0].resources.ram_bytes, devices[0].resources.flash_bytes) == (None, 2048 * 1024)
    assert not devices[1].resources.whole_device


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('ram = "device"', r"groups\[1\]\.ram: .*says no ram"),
        ('flash = "device"', r"groups\[1\]\.flash: .*says no flash"),
        ('ram = "unlimited"', r"groups\[1\]\.ram: .*leave the key out"),
        ('ram = "lots"', r"groups\[1\]\.ram"),
        ('ram = "40 KiB"\nreserve = "40 KiB"', r"groups\[1\]\.reserve: 40.0 KiB leaves nothing"),
        ('ram = "40 KiB"\n[method]\ncovers = "training"', r"method\.covers: .*count the whole step"),
        ('flash = "1 MiB"\n[method]\nname = "checkpointing"', r"method\.name: .*cannot count"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(GOOD + text)
    found = problems_of(path)
    assert any(re.search(expected, one) for one in found), found
